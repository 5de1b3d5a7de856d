"""What is logged, in which format and where: the same in the command's process and in all that it starts."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from gpo.errors import ConfigError
from gpo.runtime.context import ContextFilter
from gpo.text import last_line

log = logging.getLogger(__name__)

_OURS = ("gpo", "actors", "serve", "cluster")
"""Loggers whose level the user chooses. Others log warnings only: at lower levels, HTTP clients log whole requests,
with prompts and keys."""
_VARIABLE = "GPO_LOGS"
_FOLDER = "logs"


class Format(StrEnum):
    """Format of a log line."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """Least severe level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Target(StrEnum):
    """Where lines go: standard error, or ``logs/`` in the run folder, with one file per process."""

    STDERR = "stderr"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Logs:
    """How and where a process logs.

    Attributes:
        format: of a line.
        level: of the project's own loggers.
        target: where lines go.
        run: ID of the run, in every line; ``None`` without a run.
        folder: of the log files, once it is known.
    """

    format: Format = Format.TEXT
    level: Level = Level.WARNING
    target: Target = Target.STDERR
    run: str | None = None
    folder: str | None = None

    @property
    def owns_stderr(self) -> bool:
        """Whether standard error is reserved for JSON lines."""
        return self.format is Format.JSON and self.target is Target.STDERR

    def begin(self, process: str) -> None:
        """Configure logging in this process.

        Args:
            process: kind of process; part of its file's name.
        """
        # The file is created at the first line, so that silent processes leave no file.
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
        """The runtime environment in which Ray's workers log in the same way; empty for the default.

        A runtime environment slows down the start of every worker.
        """
        if self in (Logs(), Logs(run=self.run)):
            return {}
        return {
            "env_vars": {_VARIABLE: json.dumps(asdict(self))},
            "worker_process_setup_hook": f"{__name__}.begin_here",
        }


_chosen = Logs()


def chosen() -> Logs:
    """How this process logs."""
    return _chosen


def choose(logs: Logs) -> None:
    """Configure logging in the command's process."""
    global _chosen  # loggers are global, too
    _chosen = logs
    logs.begin("driver")


def choose_for(run: str, folder: Path | None) -> None:
    """Log on behalf of a run from now on.

    Args:
        run: ID of the run.
        folder: of the run; ``None`` if it is not local.

    Raises:
        ConfigError: lines should go to the folder, and cannot.
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
    """Log like the command that started this process; Ray calls this first in every worker."""
    known = json.loads(os.environ[_VARIABLE])
    Logs(Format(known["format"]), Level(known["level"]), Target(known["target"]), known["run"], known["folder"]).begin(
        "worker"
    )


@contextmanager
def log_failures(what: str) -> Iterator[None]:
    """Log an error of the block instead of raising it: failed cleanup must not hide the error that caused it."""
    try:
        yield
    except Exception as error:
        log.warning("%s failed: %s", what, last_line(error))
