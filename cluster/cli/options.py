"""Options that several commands share, and what follows from them: the results folder and how to resume."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpo.errors import ConfigError

if TYPE_CHECKING:
    from actors.folder import Folder
    from cluster.config import RunConfig
    from cluster.runs.run_folder import RunFolder

Config = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="YAML file with the configuration. See **configs/** for examples.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Override an option of CONFIG, e.g. **--set optimizer.steps=3** or **--set tasks.0.prompt='Think.'**. "
        "Can be repeated.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="local|auto|HOST:PORT",
        help="Ray cluster to use. **local** starts one on this machine for this command. **auto** uses the cluster "
        "that this machine belongs to. HOST:PORT is its GCS address (usually port 6379).  [default: RAY_ADDRESS, or "
        "else local]",
        show_default=False,
    ),
]
ResultsDir = Annotated[
    str | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Folder for the results, or a URL such as s3://BUCKET/PATH.  [default: a new folder in the folder that "
        "the option run.dir names]",
        show_default=False,
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        min=1,
        help="Most seconds of work over all attempts, like **budget.wall_s**; the smaller one counts. An attempt "
        "begins with the command, so waiting for the cluster counts. For jobs that would be ended from outside "
        "otherwise.",
        show_default=False,
    ),
]
BudgetOk = Annotated[
    bool,
    typer.Option(
        "--budget-ok",
        help="Exit with 0 also if the budget or the deadline ended the work, so that a job is not started again.",
    ),
]
RunDir = Annotated[
    str,
    typer.Argument(metavar="RUN_DIR", help="Folder of a run, or a URL such as s3://BUCKET/PATH.", show_default=False),
]


def folder_at(field: str, location: str) -> Folder:
    """The folder at a path or URL that the user typed.

    Raises:
        ConfigError: no folder can be there, or the URL holds a user name or password.
    """
    from actors.folder import Folder
    from cluster.config.secrets import refuse_credentials

    refuse_credentials(field, location)
    try:
        return Folder.at(location)
    except (RuntimeError, ValueError) as error:  # an unknown user's home, or a NUL
        raise ConfigError(field, f"{location!r} is not a folder ({error})", "name another") from None


def results_folder(parent: str, name: str, run_id: str, run_dir: str | None, resume: bool) -> RunFolder:
    """Where results go: ``--run-dir``, or below ``run.dir`` the newest folder to resume, or else a new one.

    Raises:
        ConfigError: no folder can be there.
    """
    from cluster.runs.run_folder import RunFolder, latest_run

    if run_dir is not None:
        if not run_dir.strip():
            raise ConfigError("--run-dir", "is empty", "name a folder, or leave the option out")
        return RunFolder(folder_at("--run-dir", run_dir))
    runs = folder_at("run.dir", parent)
    newest = latest_run(runs, name) if resume else None
    return RunFolder(newest or runs / run_id)


def with_deadline(config: RunConfig, seconds: float | None) -> RunConfig:
    """The configuration, bounded by ``--deadline``."""
    if seconds is None:
        return config
    own = config.budget.wall_s
    budget = config.budget.model_copy(update={"wall_s": seconds if own is None else min(own, seconds)})
    return config.model_copy(update={"budget": budget})


def is_success(status: str, *, budget_ok: bool) -> bool:
    """Whether a command that ended with this status exits with 0."""
    return status == "completed" or (budget_ok and status == "budget_exhausted")


def resume_command(
    command: str, folder: Folder, config: Sequence[str], address: str | None, options: Sequence[str] = ()
) -> str:
    """The command line that resumes this command.

    Args:
        config: the configuration file, and the options that override it.
        address: ``--address`` as typed.
        options: further options as typed.
    """
    where = ["--address", address] if address else []
    run_dir = ["--run-dir", str(folder.local or folder.url)]
    return shlex.join(["gpo", command, *config, *options, *run_dir, *where, "--resume"])


def repeated(option: str, values: Sequence[str]) -> list[str]:
    """An option once per value, as typed on a command line."""
    return [part for value in values for part in (option, value)]
