"""Section ``compare``: several methods on the same tasks, such as those in ``configs/methods/``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cluster.config.files import laid_over, path_below, read_extended
from cluster.config.loading import read_overridden, validate
from cluster.config.optimizer import OptimizerConfig
from cluster.config.run import RunConfig
from cluster.config.section import LocatedText, OptionInfo
from gpo.errors import ConfigError

METHODS = Path(__file__).resolve().parents[2] / "configs" / "methods"
"""Folder with the project's own methods: one file per method, with its section ``optimizer``."""

STANDARD = ("gpo", "ape", "apo", "opro", "pe2", "sgdm")
"""The methods that are compared by default: GPO, and the baselines in the paper's terms."""

OWN = "own"
"""Name of the method that the configuration itself describes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = ("comparison.md", "comparison.json")
_SHARED, _OF_METHODS = (
    [name for name, field in OptimizerConfig.model_fields.items() if OptionInfo.of(field).in_comparison == where]
    for where in ("shared", "method")
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A checked comparison.

    Attributes:
        base: the configuration that all methods share.
        methods: name → that configuration with the method's ``optimizer``.
    """

    base: RunConfig
    methods: Mapping[str, RunConfig]


@dataclass(frozen=True, slots=True)
class _Method:
    """Changes to the configuration. If ``whole``, they replace the method's sections instead of changing them."""

    name: str
    changes: Mapping[str, Any]
    whole: bool = False


def load_comparison(path: Path, overrides: Sequence[str], named: Sequence[str]) -> Comparison:
    """The configuration in a file, with each method laid over it and its overrides.

    Args:
        path: the configuration's file.
        overrides: ``--set`` options.
        named: methods, by name or file, instead of those in the section ``compare``.

    Raises:
        ConfigError: names the first field that cannot be used, and its method; or an override without any effect.
    """
    comparison = _load(path, overrides, named)
    for index, override in enumerate(overrides):
        if override.strip().startswith("optimizer"):
            without = _load(path, (*overrides[:index], *overrides[index + 1 :]), named)
            if without.methods == comparison.methods and without.base != comparison.base:
                raise ConfigError(
                    f"--set {override.partition('=')[0]}",
                    "has no effect, since every method sets this itself",
                    f"add --method {OWN}, the method that CONFIG describes, or change the methods' files",
                )
    return comparison


def _load(path: Path, overrides: Sequence[str], named: Sequence[str]) -> Comparison:
    raw = read_overridden(path, overrides)
    section = raw.pop("compare", None)
    # The methods are those of the paper, so they are compared in its terms unless the file says otherwise.
    raw.setdefault("preset", "paper")
    base = validate(raw, base_dir=path.parent)
    methods: dict[str, RunConfig] = {}
    for method in _methods(section, named, path.parent):
        if not _NAME.fullmatch(method.name) or method.name in _RESERVED:
            problem = f"{method.name!r} cannot name a method"
            raise ConfigError("compare", problem, "use letters, digits, '.', '_' and '-', and begin with a letter")
        if method.name in methods:
            raise ConfigError("compare", f"duplicate method {method.name!r}", "method names must be unique")
        methods[method.name] = _with_method(raw, method, path.parent)
    return Comparison(base, methods)


def _methods(section: Any, named: Sequence[str], folder: Path) -> list[_Method]:
    if named:
        return [_from_file(name, Path.cwd(), "--method") for name in named]
    if section is None:
        return [_from_file(name, folder, "compare") for name in STANDARD]
    if isinstance(section, list) and section:
        return [_from_file(name, folder, "compare") for name in section]
    if isinstance(section, dict) and section:
        return [_from_entry(str(name), entry, folder) for name, entry in section.items()]
    raise ConfigError(
        "compare", f"{section!r} is not a list of methods", "write a list of methods, or name: changes for each"
    )


def _from_entry(name: str, entry: Any, folder: Path) -> _Method:
    if isinstance(entry, str):
        return replace(_from_file(entry, folder, f"compare.{name}"), name=name)
    if entry is None or isinstance(entry, dict):
        return _Method(name, entry or {})
    raise ConfigError(
        f"compare.{name}", f"{entry!r} cannot be used", "name a method or a file, or write the sections that it changes"
    )


def _from_file(name: Any, folder: Path, where: str) -> _Method:
    """One of the project's methods, by name, or one in a user's file."""
    if not isinstance(name, str):
        raise ConfigError(where, f"{name!r} cannot be used", "name a method or a file")
    if name == OWN:
        return _Method(OWN, {})
    if name.endswith((".yaml", ".yml")):
        file = path_below(name.folder if isinstance(name, LocatedText) else folder, name, where=where)
        return _Method(file.stem, read_extended(file, where=where), whole=True)
    known = [*sorted(path.stem for path in METHODS.glob("*.yaml")), OWN]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose among: {', '.join(known)}, or name a .yaml file"
        raise ConfigError(where, f"{name!r} is not a method", hint)
    return _Method(name, read_extended(METHODS / f"{name}.yaml", where=where), whole=True)


def _with_method(raw: Mapping[str, Any], method: _Method, folder: Path) -> RunConfig:
    where, optimizer = f"compare.{method.name}", method.changes.get("optimizer")
    # Scores compare only if one evaluator and one set of models serve all methods.
    other = next((section for section in method.changes if section != "optimizer"), None)
    if other is not None:
        raise ConfigError(
            f"{where}.{other}", "cannot differ between methods", "change optimizer only, or run it separately"
        )
    shared = next((option for option in _SHARED if isinstance(optimizer, dict) and option in optimizer), None)
    if shared is not None:
        raise ConfigError(
            f"{where}.optimizer.{shared}", "is the same for all methods", "set it in CONFIG, for all methods"
        )
    below: Mapping[str, Any] = raw
    if method.whole and isinstance(raw.get("optimizer"), dict):
        kept = {option: value for option, value in raw["optimizer"].items() if option not in _OF_METHODS}
        below = {**raw, "optimizer": kept}
    try:
        return validate(laid_over(below, method.changes), base_dir=folder)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.field}", error.problem, error.remedy) from None
