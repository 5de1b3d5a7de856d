"""What ``gpo submit`` and ``cluster.launch`` share: the checks before a job, and its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config import RunConfig
from cluster.config.loading import read_overridden, validate_run_file
from cluster.config.section import path_within
from cluster.runs.run_folder import new_run_id, require_run_id
from cluster.session.models import build_tasks
from cluster.submitting.jobs import Jobs, JobSpec, require_reachable
from cluster.submitting.keys import require_no_key_files
from cluster.submitting.package import Package, package, require_outputs_outside
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.sweep.config import SweepConfig

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Submission:
    """A run or a sweep that was checked, and that a job can start.

    Attributes:
        config_path: the configuration's file, in the working directory or in ``made``.
        config: of the run, or of a sweep's trials.
        sweep: the sweep, if it is one.
        spec: what the job runs.
        made: a folder with files that were made for the job; they are shipped as if the working directory had them.
    """

    config_path: Path
    config: RunConfig
    sweep: SweepConfig | None
    spec: JobSpec
    made: Path | None = None

    @classmethod
    def checked(
        cls,
        config_path: Path,
        overrides: Sequence[str] = (),
        *,
        is_sweep: bool = False,
        run_id: str | None = None,
        run_dir: str | None = None,
        options: Sequence[str] = (),
        say: Say,
    ) -> Submission:
        """A submission of a file in the working directory.

        Args:
            overrides: ``--set`` options.
            run_id: of the run; by default, a new one.
            run_dir: the run's folder; by default, one named after the run in ``run.dir``.
            options: further options of the command. A RayJob has its own.
            say: called with what the user should know.

        Raises:
            ConfigError: the configuration or its data cannot be used, or its results would be lost with the job.
        """
        if run_id is not None:
            require_run_id(run_id)
        config, sweep = _checked(config_path, list(overrides), is_sweep, say)
        run_id = run_id or new_run_id(config.run.name)
        run_dir = reachable_run_dir(config, run_dir, run_id)
        root = working_directory()
        # A file elsewhere is refused when the package is made; a RayJob may have one.
        path = path_within(root, config_path)
        name = config_path.name if path is None else path.relative_to(root).as_posix()
        spec = JobSpec("sweep" if is_sweep else "run", name, overrides, run_id, run_dir, options)
        return cls(config_path, config, sweep, spec)

    def require_nothing_lost(self, *folders: Path) -> None:
        """Refuse output files and key files in folders of this machine.

        Raises:
            ConfigError: names the option.
        """
        for folder in folders:
            require_outputs_outside(self.config, self.sweep.section if self.sweep else None, folder)
            require_no_key_files(self.config, folder)

    def package(self, say: Say) -> Package:
        """The files that are shipped.

        Raises:
            ConfigError: as for ``cluster.submitting.package.package``.
        """
        config, section = (self.sweep.together, self.sweep.section) if self.sweep else (self.config, None)
        shipped = package(working_directory(), self.config_path, config, section, made=self.made)
        for outside in shipped.outside:
            say(f"{outside} is outside this folder and is not shipped; every node must have it")
        return shipped

    def start(self, jobs: Jobs, shipped: Package, say: Say) -> str:
        """Start a job, unless one is still working on the run; its ID."""
        earlier = jobs.attempts(self.spec.run_id)
        if earlier and not earlier[-1].status.is_terminal():
            job_id = str(earlier[-1].submission_id)
            say(f"Job {job_id} is already working on this run")
            return job_id
        job_id = jobs.submit(self.spec, shipped)
        resuming = " to resume the run" if earlier else ""
        say(f"Submitted job {job_id}{resuming}: {len(shipped.names)} files, {shipped.num_bytes / 1e6:.1f} MB")
        return job_id


def working_directory() -> Path:
    """The folder that is shipped."""
    return Path.cwd().resolve()


def reachable_run_dir(config: RunConfig, run_dir: str | None, run_id: str) -> str:
    """The run's folder.

    Raises:
        ConfigError: it would be lost with the job.
    """
    require_reachable(*(("--run-dir", run_dir) if run_dir else ("run.dir", config.run.dir)))
    return run_dir or f"{config.run.dir.rstrip('/')}/{run_id}"


def _checked(config_path: Path, overrides: list[str], is_sweep: bool, say: Say) -> tuple[RunConfig, SweepConfig | None]:
    """The configuration of the run, or of a sweep's trials and the sweep, with data that was loaded and checked."""
    raw = read_overridden(config_path, overrides)
    if is_sweep:
        from cluster.sweep.config import load_sweep

        swept = load_sweep(config_path, overrides)
        return swept.base, swept
    if "sweep" in raw:
        raise ConfigError("sweep", "is a search for hyperparameters", "submit it with: --sweep")
    config = validate_run_file(raw, config_path)
    build_tasks(config, say)
    return config, None
