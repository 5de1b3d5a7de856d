"""Environment variables that a program of the user sees otherwise than this package does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_own: dict[str, tuple[str | None, int]] = {}
"""Replaced variable → its own value, ``None`` if it is not set, and the number of blocks that replace it."""


def variable(name: str) -> str:
    """The value of a variable without replacements; empty if it is not set."""
    with _lock:
        return (_own[name][0] if name in _own else os.environ.get(name)) or ""


def own_environment() -> dict[str, str]:
    """All variables without replacements, for processes that this package starts."""
    with _lock:
        values: dict[str, str | None] = {**os.environ, **{name: value for name, (value, _) in _own.items()}}
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def replaced(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process while the block runs.

    Blocks can overlap, in threads as well: the last one to end restores the variables. All of them must give a variable
    the same value.
    """
    with _lock:
        for name, value in values.items():
            own, number = _own.get(name, (os.environ.get(name), 0))
            _own[name] = own, number + 1
            os.environ[name] = value
    try:
        yield
    finally:
        with _lock:
            for name in values:
                own, number = _own.pop(name)
                if number > 1:
                    _own[name] = own, number - 1
                elif own is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = own
