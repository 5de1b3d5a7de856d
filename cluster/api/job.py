"""A run that a job on a Ray cluster drives, submitted as ``gpo submit`` does."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from actors.folder import Folder
from cluster.api.handle import RunHandle, ended_run
from cluster.api.keywords import named_by_arguments
from cluster.api.run import Run, folder_at
from cluster.config import RunConfig
from cluster.config.loading import validate
from cluster.config.section import path_within
from cluster.runs.run_folder import new_run_id, require_run_id
from cluster.session.models import build_tasks
from cluster.submitting.jobs import Jobs, JobSpec, exit_code
from cluster.submitting.package import input_paths
from cluster.submitting.submission import Submission, reachable_run_dir, working_directory
from gpo.errors import ClusterError, ConfigError
from gpo.text import last_line

log = logging.getLogger(__name__)

_CONFIG, _ROWS = "gpo-launch.yaml", "gpo-launch"
"""Names in a job's working directory."""
_STATES = {"PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "completed", "STOPPED": "interrupted"}


class JobRun(RunHandle):
    """A run that a job drives.

    Attributes:
        run_id: of the run.
        job_id: of the job.
    """

    def __init__(self, jobs: Jobs, job_id: str, run_id: str, folder: Folder) -> None:
        super().__init__(folder)
        self._jobs, self.job_id, self.run_id = jobs, job_id, run_id

    def status(self) -> dict[str, Any]:
        """What ``gpo status --json`` prints, and ``job``: the job's ID, status and message.

        While the folder holds no run, or where it cannot be read from here, only ``run_id``, ``state`` and ``job``.

        Raises:
            ClusterError: the cluster cannot be reached.
        """
        job = self._jobs.info(self.job_id)
        about = {"id": self.job_id, "status": job.status.value, "message": job.message}
        try:
            return {**super().status(), "job": about}
        except ConfigError:
            return {"run_id": self.run_id, "state": _STATES.get(job.status.value, "failed"), "job": about}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended; see ``RunHandle.wait``.

        Raises:
            ClusterError: the cluster was unreachable for a minute.
        """
        job = self._jobs.wait(self.job_id, math.inf if timeout is None else timeout)
        return bool(job.status.is_terminal())

    def stop(self) -> None:
        """Stop the job, so that the run saves its work and ends; does not wait for that.

        Raises:
            ClusterError: the cluster cannot be reached.
        """
        self._jobs.stop(self.job_id)

    def result(self) -> Run:
        """Wait until the job has ended; the run's results.

        Raises:
            GPOError: the run failed.
            ClusterError: the job failed, or the cluster cannot be reached.
            ConfigError: the run's folder cannot be read from here.
        """
        job = self._jobs.wait(self.job_id)
        code = exit_code(job)
        failure = ClusterError(f"job {self.job_id} failed: {last_line(job.message or job.status.value)}")
        try:
            run = Run.open(self._folder.url)
        except ConfigError:
            if code:
                raise failure from None
            raise
        if code == 1 and run.status in ("interrupted", "budget_exhausted"):
            return run
        if code and not (run.status == "failed" and run.errors):
            raise failure
        return ended_run(self._folder)


def submitted(make: Callable[[Path], Submission], address: str | None, *, has_configuration: bool) -> JobRun:
    """Submit a run.

    Args:
        make: makes the submission; it may write files into the folder that it is called with.
        has_configuration: see ``named_by_arguments``.

    Raises:
        ConfigError: the run cannot be submitted.
        ClusterError: the cluster refuses the job.
    """
    with (
        named_by_arguments(has_configuration=has_configuration),
        tempfile.TemporaryDirectory(prefix="gpo-launch-") as made,
    ):
        submission = make(Path(made).resolve())
        submission.require_nothing_lost(working_directory())
        shipped = submission.package(log.warning)
        jobs = Jobs(address)
        job_id = submission.start(jobs, shipped, log.info)
    spec = submission.spec
    return JobRun(jobs, job_id, spec.run_id, folder_at(spec.run_dir))


def made_submission(sections: Mapping[str, Any], made: Path, *, run_id: str | None, run_dir: str | None) -> Submission:
    """A submission of a configuration that is not in a file.

    Args:
        sections: as in YAML; files in ``made`` and in the working directory are shipped.
        made: a folder that the configuration's file is written into.

    Raises:
        ConfigError: the configuration or its data cannot be used.
    """
    if run_id is not None:
        require_run_id(run_id)
    config = validate(sections, base_dir=Path.cwd())
    run_id = run_id or new_run_id(config.run.name)
    run_dir = reachable_run_dir(config, run_dir, run_id)
    build_tasks(config, log.info)
    path = made / _CONFIG
    text = yaml.safe_dump(_portable(sections, config, made), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return Submission(path, config, None, JobSpec("run", _CONFIG, (), run_id, run_dir), made)


def rows_folder(made: Path) -> Folder:
    """Where examples that were passed as objects are written for a job."""
    return Folder.at(str(made / _ROWS))


def _portable(sections: Mapping[str, Any], config: RunConfig, made: Path) -> Any:
    """The sections with plain values, and with paths as they are in the job's working directory."""
    inputs = {str(path) for _, path in input_paths(config)}
    roots = (made, working_directory())

    def portable(value: Any, option: str) -> Any:
        if isinstance(value, Mapping):
            return {str(name): portable(one, f"{option}.{name}".removeprefix(".")) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [portable(one, f"{option}[{index}]") for index, one in enumerate(value)]
        if value is None or isinstance(value, bool | int | float):
            return value
        if not isinstance(value, str | Path):
            problem = f"a {type(value).__name__} cannot be written to YAML"
            raise ConfigError(option, problem, "pass plain values; name a function as 'module:function'")
        for root in roots if str(value) in inputs else ():
            if (shipped := path_within(root, Path(value))) is not None:
                return shipped.relative_to(root).as_posix()
        return str(value)

    return portable(sections, "")
