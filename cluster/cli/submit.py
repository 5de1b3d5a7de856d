"""``gpo submit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import Overrides
from cluster.cli.terminal import BAD_CONFIG, OK, say
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.submitting.jobs import Jobs
    from cluster.submitting.submission import Submission


def submit(
    config_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="YAML file in the working directory or below it. Not needed with --status and --stop.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="URL",
            help="URL of the cluster's dashboard.  [default: RAY_API_SERVER_ADDRESS, or else http://127.0.0.1:8265]",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Run **gpo sweep** instead of **gpo run**.")] = False,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run-id",
            metavar="ID",
            help="Run ID. Passing an existing ID resumes that run.  [default: a new one]",
            show_default=False,
        ),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Folder for the results, or a URL such as s3://BUCKET/PATH. All nodes must reach it.  [default: a "
            "folder named after the run ID, in run.dir]",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Like --wait, and print the job's output.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job ends, and exit with its exit code.")] = False,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="ID",
            help="Submit nothing; show the state of this run's newest Ray job.",
            show_default=False,
        ),
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(
            "--stop", metavar="ID", help="Submit nothing; stop this run. It can be resumed.", show_default=False
        ),
    ] = None,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes",
            help="Submit nothing; print a ConfigMap and a KubeRay RayJob, which starts its own cluster. Needs --image.",
        ),
    ] = False,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            help="Image of the RayJob's containers, for example the image built by make image.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of the RayJob.")] = "gpo",
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="Like --kubernetes, but create the objects with **kubectl**, in its current context."
        ),
    ] = False,
) -> int:
    """Run CONFIG as a job on a remote Ray cluster.

    Example: **gpo submit run.yaml --address http://head:8265 --run-dir s3://bucket/runs/first --follow**

    Uploads the working directory, except what **.gitignore** and **.rayignore** exclude. Keys are never uploaded: set
    the environment variables that CONFIG names on every node of the cluster. If the cluster asks for a token, set
    **RAY_AUTH_TOKEN** in this shell.
    """
    from cluster.config.secrets import refuse_credentials

    refuse_credentials("--run-dir", run_dir or "")
    if status is not None:
        return _show_status(status, address)
    if stop is not None:
        return _stop(stop, address)
    if config_path is None:
        raise ConfigError("CONFIG", "is missing", "name a YAML file, or use --status or --stop")
    from cluster.submitting.jobs import Jobs
    from cluster.submitting.submission import Submission, working_directory

    submission = Submission.checked(
        config_path, overrides or [], is_sweep=sweep, run_id=run_id, run_dir=run_dir, say=say
    )
    root = working_directory()
    if kubernetes or apply:
        # A RayJob does not get the configuration's folder either, even if that is outside the working directory.
        submission.require_nothing_lost(root, config_path.resolve().parent)
        return _as_ray_job(submission, image, namespace, apply=apply)
    submission.require_nothing_lost(root)
    shipped = submission.package(say)
    jobs = Jobs(address)
    job_id = submission.start(jobs, shipped, say)
    run_id = submission.spec.run_id
    if not (follow or wait):
        say(f"Show its status with: gpo submit --status {run_id} --address {jobs.address}")
        return OK
    return _await(jobs, job_id, run_id, follow=follow)


def _as_ray_job(submission: Submission, image: str | None, namespace: str, *, apply: bool) -> int:
    from cluster.submitting.kubernetes import apply as kubectl_apply
    from cluster.submitting.kubernetes import manifest

    config = submission.config
    if config.cache.kind == "sqlite" and config.cache.path is None:
        say(
            "cache.kind is sqlite: each pod has its own file, which is lost with the pod; a later attempt pays again "
            "for calls that no checkpoint covers. With a Redis in the cluster: --set cache.kind=redis (see "
            "k8s/README.md)."
        )
    objects = manifest(
        submission.config_path, config, submission.sweep, submission.spec, image=image, namespace=namespace
    )
    if apply:
        kubectl_apply(objects)
    else:
        typer.echo(objects.text, nl=False)
    return OK


def _await(jobs: Jobs, job_id: str, run_id: str, *, follow: bool) -> int:
    """Wait until a job ends; its exit code."""
    from cluster.submitting.jobs import exit_code

    try:
        job = jobs.follow(job_id, lambda text: typer.echo(text, nl=False)) if follow else jobs.wait(job_id)
    except KeyboardInterrupt:
        say(f"The job continues. Stop it with: gpo submit --stop {run_id} --address {jobs.address}")
        raise
    code = exit_code(job)
    reason = f": {job.message}" if code and not follow else ""  # with --follow, the output ended with it
    say(f"Job {job_id} {job.status.value.lower()}, exit code {code}{reason}")
    if code == BAD_CONFIG:
        say(
            "The cluster refused a configuration that passed the checks here. The job looks up keys and endpoints "
            "there: variables such as OPENAI_API_KEY are never shipped; set them where the cluster's nodes are started."
        )
    return code


def _show_status(run_id: str, address: str | None) -> int:
    """Show the newest job of a run; the exit code is 0 unless it failed."""
    from cluster.submitting.jobs import Jobs, exit_code

    jobs = Jobs(address)
    job_id = jobs.newest(run_id)
    job = jobs.info(job_id)
    typer.echo(f"{job_id} {job.status.value}: {(job.message or '').partition(chr(10))[0]}")
    return exit_code(job) if job.status.is_terminal() else OK


def _stop(run_id: str, address: str | None) -> int:
    from cluster.submitting.jobs import Jobs

    jobs = Jobs(address)
    job_id = jobs.newest(run_id)
    was_running = jobs.stop(job_id)
    jobs.wait(job_id)
    say(f"Job {job_id} " + ("has stopped" if was_running else "was not running"))
    say(f"Resume with: gpo submit CONFIG --run-id {run_id} --address {jobs.address}")
    return OK
