"""Imports with the garbage collector off."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def collector_off() -> Iterator[None]:
    """Do not look for garbage in the block, nor ever among the objects that exist at its end.

    What imports create stays, and looking through it again and again would slow them down. Only for commands: in the
    user's own program, objects that are garbage by then would never be collected.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def preload(*modules: str) -> None:
    """Import modules with the garbage collector off; see ``collector_off``."""
    if all(module in sys.modules for module in modules):
        return
    with collector_off():
        for module in modules:
            import_module(module)
