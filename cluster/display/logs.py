"""What is logged, in which form, and where: the same in the command's own process and in all that it has started."""

from __future__ import annotations

import json
import logging
import os
import socket
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from gpo.context import ContextFilter
from gpo.errors import ConfigError

_OURS = ("gpo", "actors", "serve", "cluster")
"""Loggers whose level is chosen. Others log no more than warnings: at lower levels, clients log whole requests, and
prompts and keys with them."""
_VARIABLE = "GPO_LOGS"
_FOLDER = "logs"


class Format(StrEnum):
    """What a line looks like."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """From which severity on something is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Target(StrEnum):
    """Where lines go: ``folder`` is ``logs/`` in the run's folder, with a file for each process."""

    STDERR = "stderr"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Logs:
    """The choice.

    Attributes:
        run: in every line; ``None`` where no run is under way.
        folder: of the log files, once it is known.
    """

    format: Format = Format.TEXT
    level: Level = Level.WARNING
    target: Target = Target.STDERR
    run: str | None = None
    folder: str | None = None

    @property
    def owns_stderr(self) -> bool:
        """Whether nothing but JSON lines may go to standard error."""
        return self.format is Format.JSON and self.target is Target.STDERR

    def begin(self, process: str) -> None:
        """Log so from now on, in this process.

        Args:
            process: what it is; a part of its file's name.
        """
        # The file is opened at the first line, so that processes with nothing to say leave none.
        handler: logging.Handler = logging.StreamHandler()
        if self.target is Target.FOLDER and self.folder is not None:
            ending = "jsonl" if self.format is Format.JSON else "log"
            name = f"{process}-{socket.gethostname()}-{os.getpid()}.{ending}"
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(Path(self.folder) / name, encoding="utf-8", delay=True)
        handler.setFormatter(self._formatter())
        handler.addFilter(ContextFilter(self.run))
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        for name in _OURS:
            logging.getLogger(name).setLevel(self.level.upper())

    def _formatter(self) -> logging.Formatter:
        if self.format is Format.TEXT:
            return logging.Formatter("%(levelname)s %(name)s: %(message)s")
        from pythonjsonlogger.json import JsonFormatter

        fields = ["timestamp", "levelname", "name", "message", "process"]
        names = {"levelname": "level", "name": "logger", "process": "pid"}
        return JsonFormatter(fields, rename_fields=names, timestamp=True)

    def for_workers(self) -> dict[str, Any]:
        """Ray's runtime environment in which processes log likewise; empty where they need none.

        A runtime environment costs each of them some time at its start.
        """
        if self in (Logs(), Logs(run=self.run)):
            return {}
        return {
            "env_vars": {_VARIABLE: json.dumps(asdict(self))},
            "worker_process_setup_hook": f"{__name__}.begin_here",
        }


_chosen = Logs()


def chosen() -> Logs:
    """What this process logs."""
    return _chosen


def choose(logs: Logs) -> None:
    """Log so from now on, in the command's own process."""
    global _chosen  # as global as the loggers themselves
    _chosen = logs
    logs.begin("driver")


def choose_for(run: str, folder: Path | None) -> None:
    """Log on behalf of a run from now on.

    Args:
        folder: of the run; ``None`` where it is no local one.

    Raises:
        ConfigError: the lines were to go there, and cannot.
    """
    if _chosen.target is Target.STDERR:
        choose(replace(_chosen, run=run))
        return
    if folder is None:
        raise ConfigError("--log-to", "'folder' needs a local run folder", "choose stderr")
    try:
        choose(replace(_chosen, run=run, folder=str(folder / _FOLDER)))
    except OSError as error:
        raise ConfigError("--log-to", f"{str(folder / _FOLDER)!r} cannot be made ({error})", "choose stderr") from None


def begin_here() -> None:
    """Log as the command does that had this process started; Ray calls it before anything else."""
    known = json.loads(os.environ[_VARIABLE])
    Logs(Format(known["format"]), Level(known["level"]), Target(known["target"]), known["run"], known["folder"]).begin(
        "worker"
    )
