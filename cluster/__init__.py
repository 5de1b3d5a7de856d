"""The composition root: the ``gpo`` command, its configuration, and how the parts are put together.

``launch`` starts a run on a Ray cluster, and ``attach`` finds one that someone started. The names are loaded when they
are first used, since the command imports this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.api.handle import RunHandle, attach
    from cluster.api.launch import launch

__all__ = ["RunHandle", "attach", "launch"]

_MODULES = {
    "RunHandle": "cluster.api.handle",
    "attach": "cluster.api.handle",
    "launch": "cluster.api.launch",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
