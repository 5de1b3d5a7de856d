"""For whom a call is made, so that trajectories which share a process are served in turn."""

from __future__ import annotations

from contextvars import ContextVar

caller: ContextVar[str] = ContextVar("caller", default="")
"""The trajectory that the current task works for. Tasks that it starts inherit it; a new request sets its own."""
