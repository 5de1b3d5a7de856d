"""Modules of the user's own, found in folders by name.

They are no part of Python's search path, and two of the same name in different folders are two modules: each list of
folders is a package of its own, below which they are imported. What they import is looked for in the same folders
first, but for names of the standard library.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib import import_module, invalidate_caches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_PREFIX = "_gpo_own_"


def home_of(module: str, folders: Sequence[str]) -> str | None:
    """The first of the folders that holds a module (dotted: in a package), or ``None``; nothing is imported."""
    return next((folder for folder in folders if _is_in(folder, module)), None)


def _is_in(folder: str, module: str) -> bool:
    places, found = [folder], None
    for part in module.split("."):
        found = PathFinder.find_spec(part, places)
        if found is None:
            return False
        places = list(found.submodule_search_locations or ())
    return found is not None and found.origin is not None  # not a mere folder of that name


@cache
def own_module(module: str, folders: tuple[str, ...]) -> ModuleType:
    """The module from the first of the folders that holds it, or else from where Python looks; loaded once.

    Raises:
        ModuleNotFoundError: it is in neither. And whatever the module itself raises.
    """
    invalidate_caches()  # it may have been written a moment ago
    home = home_of(module, folders)
    if home is None:
        return import_module(module)
    return import_module(f"{_package((home, *(folder for folder in folders if folder != home)))}.{module}")


def _package(folders: tuple[str, ...]) -> str:
    """The name of the package that stands for the folders."""
    name = _PREFIX + sha256("\0".join(folders).encode(errors="surrogateescape")).hexdigest()[:16]
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = list(folders)
        sys.modules[name] = package
    return name


class _OwnFinder(MetaPathFinder):
    """Finds what lies in such a package, and sees to it that its imports look there, too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.origin is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _OwnLoader(fullname, found.origin)
        return found


class _OwnLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _imported}
        super().exec_module(module)


def _imported(
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002  # may be given by name, and so may the next
    locals: Mapping[str, Any] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Python's ``__import__`` for modules of the user's own."""
    top = name.partition(".")[0]
    package = str((globals or {}).get("__name__", "")).partition(".")[0]
    is_near = level == 0 and package in sys.modules and top not in sys.stdlib_module_names
    if not is_near or home_of(name, sys.modules[package].__path__) is None:
        return __import__(name, globals, locals, fromlist or (), level)
    found = __import__(f"{package}.{name}", globals, locals, fromlist or (), 0)
    return found if fromlist else sys.modules[f"{package}.{top}"]


sys.meta_path.insert(0, _OwnFinder())
