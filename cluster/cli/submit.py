"""``gpo submit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import Overrides, require_run_id
from cluster.cli.terminal import BAD_CONFIG, OK, say
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.config import RunConfig
    from cluster.submitting.jobs import Jobs, JobSpec
    from cluster.submitting.package import Package
    from cluster.sweep.config import SweepConfig


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
    if run_id is not None:
        require_run_id(run_id)

    from cluster.runs.run_folder import new_run_id
    from cluster.submitting.jobs import Jobs, JobSpec, require_reachable
    from cluster.submitting.keys import require_no_key_files
    from cluster.submitting.package import package, require_outputs_outside

    config, swept = _checked(config_path, overrides or [], sweep)
    run_id = run_id or new_run_id(config.run.name)
    require_reachable(*(("--run-dir", run_dir) if run_dir else ("run.dir", config.run.dir)))
    run_dir = run_dir or f"{config.run.dir.rstrip('/')}/{run_id}"
    root, path = Path.cwd().resolve(), config_path.resolve()
    # A RayJob does not get the configuration's folder either, even if that is outside the working directory.
    for folder in (root, path.parent) if kubernetes or apply else (root,):
        require_outputs_outside(config, swept.section if swept else None, folder)
        require_no_key_files(config, folder)
    command = "sweep" if sweep else "run"
    if kubernetes or apply:
        spec = JobSpec(command, "", overrides or [], run_id, run_dir)
        return _as_ray_job(config_path, config, swept, spec, image, namespace, apply=apply)
    shipped = package(root, config_path, swept.together, swept.section) if swept else package(root, config_path, config)
    for outside in shipped.outside:
        say(f"{outside} is outside this folder and is not shipped; every node must have it")
    jobs = Jobs(address)
    spec = JobSpec(command, path.relative_to(root).as_posix(), overrides or [], run_id, run_dir)
    job_id = _start_job(jobs, spec, shipped)
    if not (follow or wait):
        say(f"Show its status with: gpo submit --status {run_id} --address {jobs.address}")
        return OK
    return _await(jobs, job_id, run_id, follow=follow)


def _checked(config_path: Path, overrides: list[str], sweep: bool) -> tuple[RunConfig, SweepConfig | None]:
    """The configuration of the run, or of a sweep's trials and the sweep, with data that was loaded and checked."""
    from cluster.config.loading import read_overridden, validate_run_file
    from cluster.session.models import build_tasks

    raw = read_overridden(config_path, overrides)
    if sweep:
        from cluster.sweep.config import load_sweep

        swept = load_sweep(config_path, overrides)
        return swept.base, swept
    if "sweep" in raw:
        raise ConfigError("sweep", "is a search for hyperparameters", "submit it with: --sweep")
    config = validate_run_file(raw, config_path)
    build_tasks(config, say)
    return config, None


def _as_ray_job(
    config_path: Path,
    config: RunConfig,
    sweep: SweepConfig | None,
    spec: JobSpec,
    image: str | None,
    namespace: str,
    *,
    apply: bool,
) -> int:
    from cluster.submitting.kubernetes import apply as kubectl_apply
    from cluster.submitting.kubernetes import manifest

    if config.cache.kind == "sqlite" and config.cache.path is None:
        say(
            "cache.kind is sqlite: each pod has its own file, which is lost with the pod; a later attempt pays again "
            "for calls that no checkpoint covers. With a Redis in the cluster: --set cache.kind=redis (see "
            "k8s/README.md)."
        )
    objects = manifest(config_path, config, sweep, spec, image=image, namespace=namespace)
    if apply:
        kubectl_apply(objects)
    else:
        typer.echo(objects.text, nl=False)
    return OK


def _start_job(jobs: Jobs, spec: JobSpec, shipped: Package) -> str:
    """Start a job, unless one is still working on the run; its ID."""
    earlier = jobs.attempts(spec.run_id)
    if earlier and not earlier[-1].status.is_terminal():
        job_id = str(earlier[-1].submission_id)
        say(f"Job {job_id} is already working on this run")
        return job_id
    job_id = jobs.submit(spec, shipped)
    resuming = " to resume the run" if earlier else ""
    say(f"Submitted job {job_id}{resuming}: {len(shipped.names)} files, {shipped.num_bytes / 1e6:.1f} MB")
    return job_id


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
