"""The folders of ``gpo serve``: where its runs are, and what a request may name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.config import RunConfig
from cluster.config.files import path_below
from gpo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RunFolders:
    """Where runs over HTTP work.

    Attributes:
        runs: a folder for each run is below it; absolute and without links, as is ``allowed``.
        allowed: the folder with files and modules that a request may name; ``None`` is none.
        max_runs: runs that work at once.
    """

    runs: Path
    allowed: Path | None
    max_runs: int


def run_folders(config: RunConfig, runs_dir: Path | None, allow_dir: Path | None, max_runs: int) -> RunFolders | None:
    """The folders as the options of the command name them; ``None`` where no runs are to be started.

    Raises:
        ConfigError: one cannot be used.
    """
    if max_runs == 0:
        return None
    if runs_dir is None and "://" in config.run.dir:
        problem = f"run.dir is {config.run.dir!r}, and runs over HTTP need a folder on this machine"
        raise ConfigError("--runs-dir", problem, "name one, or start no runs with --max-runs 0")
    runs = path_below(Path.cwd(), runs_dir or config.run.dir, where="--runs-dir").resolve()
    allowed = allow_dir and path_below(Path.cwd(), allow_dir, where="--allow-dir").resolve()
    if allowed is not None and not allowed.is_dir():
        raise ConfigError("--allow-dir", f"{str(allow_dir)!r} is not a folder", "name one")
    if allowed is not None and (runs.is_relative_to(allowed) or allowed.is_relative_to(runs)):
        raise ConfigError("--allow-dir", f"{str(allow_dir)!r} overlaps the folder of runs", "name another")
    return RunFolders(runs, allowed, max_runs)
