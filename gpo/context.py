"""What a log line is about: said once where the work begins, carried by every line that is logged on the way."""

from __future__ import annotations

import logging
from contextvars import ContextVar

FIELDS = ("run", "task", "trajectory", "step")
"""In every line; ``None`` where a line is about no single one. A trajectory is ``task/seed``, a step its index."""

_about: ContextVar[dict[str, str | int | None]] = ContextVar("log_context")


def log_about(**fields: str | int | None) -> None:
    """Say what the current asyncio task, and every one that it starts from now on, works on; adds to what was said."""
    if unknown := fields.keys() - set(FIELDS):
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    _about.set({**_about.get({}), **fields})


def step_under_way() -> int | None:
    """The step that the current asyncio task works on, where it was said; to be sent along with what is asked for."""
    step = _about.get({}).get("step")
    return step if isinstance(step, int) else None


class AboutFilter(logging.Filter):
    """Puts the fields into each record that passes, where it does not name them itself; of a handler.

    Args:
        run: what the process works for.
    """

    def __init__(self, run: str | None = None) -> None:
        super().__init__()
        self._run = run

    def filter(self, record: logging.LogRecord) -> bool:
        about = {"run": self._run, **_about.get({})}
        for name in FIELDS:
            record.__dict__.setdefault(name, about.get(name))
        return True


current_caller: ContextVar[str] = ContextVar("caller", default="")
"""The trajectory that the current task works for. Tasks that it starts inherit it; a new request sets its own."""
