"""What the current asyncio task works on: for log lines, and for models that serve several callers."""

from __future__ import annotations

import logging
from contextvars import ContextVar

FIELDS = ("run", "task", "trajectory", "step")
"""Fields of every log line; ``None`` where they do not apply. A trajectory is ``task/seed``, a step its index."""

current_caller: ContextVar[str] = ContextVar("current_caller", default="")
"""The trajectory that the current task works for; tasks that it starts inherit it. Empty if there is none."""

is_retry: ContextVar[bool] = ContextVar("is_retry", default=False)
"""Whether the current task repeats a failed request; ``gpo.models.retrying.RetryingModel`` sets it for each request."""

_log_fields: ContextVar[dict[str, str | int | None]] = ContextVar("log_fields")


def log_about(**fields: str | int | None) -> None:
    """Add fields to every log line of the current asyncio task, and of the tasks that it starts from now on."""
    if unknown := fields.keys() - set(FIELDS):
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    _log_fields.set({**_log_fields.get({}), **fields})


def current_step() -> int | None:
    """The step that the current asyncio task works on, if ``log_about`` named one; sent along with requests."""
    step = _log_fields.get({}).get("step")
    return step if isinstance(step, int) else None


class ContextFilter(logging.Filter):
    """Adds the fields to each log record, unless the record has them already. Belongs to a handler.

    Args:
        run: the run that the process belongs to.
    """

    def __init__(self, run: str | None = None) -> None:
        super().__init__()
        self._run = run

    def filter(self, record: logging.LogRecord) -> bool:
        fields = {"run": self._run, **_log_fields.get({})}
        for name in FIELDS:
            record.__dict__.setdefault(name, fields.get(name))
        return True
