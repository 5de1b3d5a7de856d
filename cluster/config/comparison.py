"""Several methods on the same tasks: the section ``compare``, and the methods that come with the project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cluster.config.extending import laid_over, read_extended
from cluster.config.loading import read_overridden, validate
from cluster.config.root import RunConfig
from gpo.errors import ConfigError

METHODS = Path(__file__).resolve().parents[2] / "configs" / "methods"
"""Where each method that comes with the project is a file: its section ``optimizer``."""

STANDARD = ("gpo", "ape", "apo", "opro", "pe2", "sgdm")
"""What is compared where nothing is named: GPO, and the baselines as the paper frames them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared.

    Attributes:
        base: the configuration that all methods share.
        methods: name → that configuration with the method's ``optimizer``.
    """

    base: RunConfig
    methods: Mapping[str, RunConfig]


def load_comparison(path: Path, overrides: Sequence[str], named: Sequence[str]) -> Comparison:
    """The configuration in a file, once for each method.

    Overrides are put over the file, and the methods over both.

    Args:
        named: methods, by name or file, in place of those in the section ``compare``.

    Raises:
        ConfigError: names the first field that cannot be used, and the method that it belongs to.
    """
    raw = read_overridden(path, overrides)
    section = raw.pop("compare", None)
    base = validate(raw, base_dir=path.parent)
    methods: dict[str, RunConfig] = {}
    for name, changes in _methods(section, named, path.parent):
        if name in methods:
            raise ConfigError("compare", f"{name!r} stands twice", "give each method its own name")
        methods[name] = _with_method(raw, changes, name, path.parent)
    return Comparison(base, methods)


def _methods(section: Any, named: Sequence[str], folder: Path) -> list[tuple[str, Mapping[str, Any]]]:
    if named:
        return [_from_file(name, Path.cwd(), "--method") for name in named]
    if section is None:
        return [_from_file(name, folder, "compare") for name in STANDARD]
    if isinstance(section, list) and section:
        return [_from_file(name, folder, "compare") for name in section]
    if isinstance(section, dict) and section:
        return [_from_entry(str(name), entry, folder) for name, entry in section.items()]
    raise ConfigError("compare", "names no method", "write a list of methods, or name: changes for each")


def _from_entry(name: str, entry: Any, folder: Path) -> tuple[str, Mapping[str, Any]]:
    where = f"compare.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(where, "is no name", "use letters, digits, '.', '_' and '-'")
    if isinstance(entry, str):
        return name, _from_file(entry, folder, where)[1]
    if entry is None or isinstance(entry, dict):
        return name, entry or {}
    raise ConfigError(where, f"{entry!r} cannot be used", "name a method or a file, or write sections to put over")


def _from_file(place: Any, folder: Path, where: str) -> tuple[str, Mapping[str, Any]]:
    """A method that comes with the project, by its name, or one in a file of the user's."""
    if not isinstance(place, str):
        raise ConfigError(where, f"{place!r} cannot be used", "name a method or a file")
    if Path(place).suffix in (".yaml", ".yml"):
        file = folder / Path(place).expanduser()
        return file.stem, read_extended(file, where=where)
    known = sorted(path.stem for path in METHODS.glob("*.yaml"))
    if place not in known:
        near = get_close_matches(place, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose among: {', '.join(known)}, or name a .yaml file"
        raise ConfigError(where, f"{place!r} is no method", hint)
    return place, read_extended(METHODS / f"{place}.yaml", where=where)


def _with_method(raw: Mapping[str, Any], changes: Mapping[str, Any], name: str, folder: Path) -> RunConfig:
    # One evaluator and one set of models serve all methods, and only then do their scores compare.
    other = next((section for section in changes if section != "optimizer"), None)
    if other is not None:
        raise ConfigError(
            f"compare.{name}.{other}", "is not what a method may change", "change optimizer only, or run it by itself"
        )
    try:
        config = validate(laid_over(raw, changes), base_dir=folder)
    except ConfigError as error:
        raise ConfigError(f"compare.{name}: {error.field}", error.problem, error.remedy) from None
    return config
