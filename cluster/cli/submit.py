"""``gpo submit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import BudgetOk, Overrides
from cluster.cli.terminal import BAD_CONFIG, OK, say
from gpo.errors import ConfigError
from gpo.text import first_line

if TYPE_CHECKING:
    from cluster.submitting.submission import Submission

NAMESPACE = "gpo"
"""The namespace of the platform in ``k8s/base``."""


def submit(
    config_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="YAML file in the working directory or below it. Not needed with --status, --logs and --stop.",
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
    budget_ok: BudgetOk = False,
    follow: Annotated[bool, typer.Option("--follow", help="Like --wait, and print the job's output.")] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait until the job succeeds or fails, and exit with its exit code. Also with --status."
        ),
    ] = False,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="ID",
            help="Submit nothing; show the state of this run's newest job.",
            show_default=False,
        ),
    ] = None,
    logs: Annotated[
        str | None,
        typer.Option(
            "--logs",
            metavar="ID",
            help="Submit nothing; print the output of all jobs of this run, also of those that failed.",
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
            help="Print a ConfigMap and a KubeRay RayJob, which starts its own cluster, for CONFIG. Needs --image. "
            "With --status, --logs or --stop: ask **kubectl**, in its current context, for the RayJob of the run.",
        ),
    ] = False,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            help="Image of the RayJob's containers, for example the image built by make image. With --logs: of the "
            "pod that reads the storage, if the RayJob was deleted.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of the RayJob.")] = NAMESPACE,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply",
            help="Like --kubernetes, but create the objects with **kubectl**, in its current context. Typed again, it "
            "continues a run that has ended before it was complete.",
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
    _require_one_action(status=status, logs=logs, stop=stop, follow=follow, wait=wait)
    started = status or logs or stop
    if started is not None:
        backend = _RayJobBackend(namespace, image) if kubernetes or apply else _JobBackend(address)
        if status is not None:
            return backend.await_end(status, follow=follow) if follow or wait else backend.show_status(status)
        return backend.show_logs(started) if logs is not None else backend.stop(started)
    if config_path is None:
        raise ConfigError("CONFIG", "is missing", "name a YAML file, or use --status, --logs or --stop")
    from cluster.submitting.submission import Submission, working_directory

    submission = Submission.checked(
        config_path,
        overrides or [],
        is_sweep=sweep,
        run_id=run_id,
        run_dir=run_dir,
        options=["--budget-ok"] if budget_ok else [],
        say=say,
    )
    root = working_directory()
    if kubernetes or apply:
        if (follow or wait) and not apply:
            raise ConfigError("--wait", "has nothing to wait for: the objects are only printed", "add --apply")
        # A RayJob does not get the configuration's folder either, even if that is outside the working directory.
        submission.require_nothing_lost(root, config_path.resolve().parent)
        return _as_ray_job(submission, image, namespace, apply=apply, waits=follow or wait, follow=follow)
    submission.require_nothing_lost(root)
    shipped = submission.package(say)
    backend = _JobBackend(address)
    job_id, run_id = submission.start(backend.jobs, shipped, say), submission.spec.run_id
    if not (follow or wait):
        say(f"Show its status with: {backend.command('--status', run_id)}")
        return OK
    return backend.await_end(run_id, job_id, follow=follow)


def _require_one_action(**given: str | bool | None) -> None:
    """Refuse options that cannot be meant together. ``--stop`` waits anyway."""
    typed = [f"--{name}" for name, value in given.items() if value not in (None, False)]
    allowed = ({"--status", "--follow", "--wait"}, {"--stop", "--wait"}, {"--logs"})
    if not any(set(typed) <= together for together in allowed):
        remedy = "use --status ID --follow to see the output of a run that works" if "--follow" in typed else ""
        raise ConfigError(typed[0], f"cannot be combined with {' and '.join(typed[1:])}", remedy or "use one of them")


def _as_ray_job(
    submission: Submission, image: str | None, namespace: str, *, apply: bool, waits: bool, follow: bool
) -> int:
    from cluster.submitting.kubernetes import manifest

    config = submission.config
    if "cache" in config.model_fields_set and config.cache.kind == "sqlite" and config.cache.path is None:
        say(
            "cache.kind is sqlite: each pod has its own file, which is lost with the pod; a later attempt pays again "
            "for calls that no checkpoint covers. To use the platform's Redis, leave the section cache out."
        )
    objects = manifest(
        submission.config_path, config, submission.sweep, submission.spec, image=image, namespace=namespace
    )
    if not apply:
        typer.echo(objects.text, nl=False)
        return OK
    backend, run_id = _RayJobBackend(namespace, image), submission.spec.run_id
    backend.jobs.start(objects, say)
    if not waits:
        say(f"Show its status with: {backend.command('--status', run_id)}")
        return OK
    return backend.await_end(run_id, follow=follow)


class _JobBackend:
    """What the options do with a Ray job."""

    def __init__(self, address: str | None) -> None:
        from cluster.submitting.jobs import Jobs

        self.jobs = Jobs(address)

    def command(self, option: str, run_id: str) -> str:
        return f"gpo submit {option} {run_id} --address {self.jobs.address}"

    def await_end(self, run_id: str, job_id: str | None = None, *, follow: bool) -> int:
        """Wait until a job of a run ends, by default the newest one; its exit code."""
        from cluster.submitting.jobs import exit_code

        job_id = job_id or self.jobs.newest(run_id)
        with _said_how_to_stop(self.command("--stop", run_id)):
            job = self.jobs.follow(job_id, _echo) if follow else self.jobs.wait(job_id)
        code = exit_code(job)
        reason = f": {job.message}" if code and not follow else ""  # with --follow, the output ended with it
        say(f"Job {job_id} {job.status.value.lower()}, exit code {code}{reason}")
        if code == BAD_CONFIG and "gpo: error: models." in (job.message or ""):
            say(
                "The cluster refused a configuration that passed the checks here. The job looks up keys and endpoints "
                "there: variables such as OPENAI_API_KEY are never shipped; set them where the cluster's nodes are "
                "started."
            )
        return code

    def show_status(self, run_id: str) -> int:
        """Show the newest job of a run; the exit code is 0 unless it failed."""
        from cluster.submitting.jobs import exit_code

        job_id = self.jobs.newest(run_id)
        job = self.jobs.info(job_id)
        typer.echo(f"{job_id} {job.status.value}: {first_line(job.message or '')}")
        return exit_code(job) if job.status.is_terminal() else OK

    def show_logs(self, run_id: str) -> int:
        self.jobs.logs(run_id, _echo)
        return OK

    def stop(self, run_id: str) -> int:
        job_id = self.jobs.newest(run_id)
        was_running = self.jobs.stop(job_id)
        self.jobs.wait(job_id)
        say(f"Job {job_id} " + ("has stopped" if was_running else "was not running"))
        say(f"Resume with: {self.command('CONFIG --run-id', run_id)}")
        return OK


class _RayJobBackend:
    """What the options do with a RayJob on Kubernetes."""

    def __init__(self, namespace: str, image: str | None) -> None:
        from cluster.submitting.ray_jobs import RayJobs

        self.jobs, self._namespace, self._image = RayJobs(namespace), namespace, image

    def command(self, option: str, run_id: str) -> str:
        namespace = "" if self._namespace == NAMESPACE else f" --namespace {self._namespace}"
        return f"gpo submit --kubernetes {option} {run_id}{namespace}"

    def await_end(self, run_id: str, *, follow: bool) -> int:
        """Wait until the RayJob of a run succeeds or fails; the driver's exit code."""
        with _said_how_to_stop(self.command("--stop", run_id)):
            job = self.jobs.follow(run_id, _echo, say) if follow else self.jobs.wait(run_id)
        code = job.exit_code
        say(f"RayJob {job.name if follow else job.shown}, exit code {code}")
        if code:
            say(f"Show the output of all attempts with: {self.command('--logs', run_id)}")
        return code

    def show_status(self, run_id: str) -> int:
        """Show the RayJob of a run; the exit code is 0 unless it failed."""
        job = self.jobs.get(run_id)
        typer.echo(job.shown)
        return job.exit_code if job.is_over else OK

    def show_logs(self, run_id: str) -> int:
        self.jobs.logs(run_id, _echo, self._image)
        return OK

    def stop(self, run_id: str) -> int:
        was_working = self.jobs.stop(run_id)
        say(f"RayJob {run_id} " + ("has stopped" if was_working else "was not working"))
        say("Resume it with the same command that submitted it")
        return OK


def _echo(text: str) -> None:
    typer.echo(text, nl=False)


@contextmanager
def _said_how_to_stop(command: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"The job continues. Stop it with: {command}")
        raise
