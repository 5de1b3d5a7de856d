"""Imports user modules from given folders without adding the folders to Python's search path.

Each list of folders becomes a separate package, so that modules of the same name in different folders do not clash.
Imports in these modules are searched in the same folders first, except for names of the standard library and of this
package: a second copy of it, in a folder with its source, would have other classes.
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

_PREFIX = "_gpo_user_"
_LIBRARY = __name__.partition(".")[0]


def home_of(module: str, folders: Sequence[str]) -> str | None:
    """The first folder that contains a module (dotted name), or ``None``; imports nothing."""
    return next((folder for folder in folders if files_of(module, folder)), None)


def files_of(module: str, folder: str) -> list[str]:
    """The files that run when a module of a folder is imported: its packages' and its own; none if it is not there."""
    paths, files, found = [folder], list[str](), None
    for part in module.split("."):
        found = PathFinder.find_spec(part, paths)
        if found is None:
            return []
        files += [found.origin] if found.origin is not None else []
        paths = list(found.submodule_search_locations or ())
    return files if found is not None and found.origin is not None else []  # more than a folder of that name


@cache
def user_module(module: str, folders: tuple[str, ...]) -> ModuleType:
    """Import a module from the first folder that contains it, or else from Python's search path; only once.

    Raises:
        ModuleNotFoundError: there is no such module.
        Exception: whatever the module raises.
    """
    invalidate_caches()  # the file may be new
    home = home_of(module, folders)
    if home is None or module.partition(".")[0] == _LIBRARY:
        return import_module(module)
    return import_module(f"{_package((home, *(folder for folder in folders if folder != home)))}.{module}")


def _package(folders: tuple[str, ...]) -> str:
    """The name of the package that represents the folders."""
    name = _PREFIX + sha256("\0".join(folders).encode(errors="surrogateescape")).hexdigest()[:16]
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = list(folders)
        sys.modules[name] = package
    return name


class _UserFinder(MetaPathFinder):
    """Finds modules in such a package, and makes their imports search the same folders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.origin is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _UserLoader(fullname, found.origin)
        return found


class _UserLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _imported}
        super().exec_module(module)


def _imported(
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002  # the names of Python's own parameters
    locals: Mapping[str, Any] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Replaces ``__import__`` in user modules."""
    top = name.partition(".")[0]
    package = str((globals or {}).get("__name__", "")).partition(".")[0]
    is_near = level == 0 and package in sys.modules and top not in {*sys.stdlib_module_names, _LIBRARY}
    if not is_near or home_of(name, sys.modules[package].__path__) is None:
        return __import__(name, globals, locals, fromlist or (), level)
    found = __import__(f"{package}.{name}", globals, locals, fromlist or (), 0)
    return found if fromlist else sys.modules[f"{package}.{top}"]


sys.meta_path.insert(0, _UserFinder())
