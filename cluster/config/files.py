"""Reading configuration files: plain YAML, ``extends``, and sections laid over sections."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic_core import PydanticUndefined

from cluster.config.run import RunConfig
from cluster.config.section import LocatedText, absolute_path, declared, sections_in
from gpo.errors import ConfigError

# -- plain YAML -------------------------------------------------------------------------------------------------------

MAX_CHARACTERS = 10_000_000
MAX_VALUES = 200_000
"""Aliases count as often as they are used: ten lists of ten aliases each expand to ten billion values."""
MAX_NESTING = 100
_TOO_DEEP = f"nested more than {MAX_NESTING} deep, or within itself"


class UnfitYaml(yaml.YAMLError):
    """A text that is not YAML, repeats a key, or is larger or more deeply nested than any configuration.

    Attributes:
        problem: says which.
        problem_mark: where it is, if that is known.
    """

    def __init__(self, problem: str, problem_mark: yaml.Mark | None = None) -> None:
        super().__init__(problem)
        self.problem, self.problem_mark = problem, problem_mark


def read_yaml(text: str) -> Any:
    """The plain value in a YAML text: nothing in it is executed, and no class is looked up.

    Raises:
        yaml.YAMLError: it is not YAML, repeats a key in a section, or exceeds the bounds.
        ValueError: it holds something that looks like a number or a date, and is none.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnfitYaml(f"more than {MAX_CHARACTERS:,} characters")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _num_values(root, {}, 0)
        return yaml.safe_load(text)
    except RecursionError:
        raise UnfitYaml(_TOO_DEEP) from None
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # PyYAML raises these for a tag that does not fit its value, as in "!!int []" or "!!float".
        raise UnfitYaml(f"a tag that does not fit its value ({type(error).__name__})") from None


def _num_values(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """The number of values in a node, with its aliases resolved."""
    if depth > MAX_NESTING:
        raise UnfitYaml(_TOO_DEEP)
    if id(node) in known:
        return known[id(node)]
    count = 1
    if isinstance(node, yaml.MappingNode):
        _require_distinct_keys(node)
        count += sum(_num_values(part, known, depth + 1) for entry in node.value for part in entry)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_num_values(part, known, depth + 1) for part in node.value)
    if count > MAX_VALUES:
        raise UnfitYaml(f"more than {MAX_VALUES:,} values")
    known[id(node)] = count
    return count


def _require_distinct_keys(section: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in section.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name = key.tag, key.value
        if name in lines:
            raise UnfitYaml(f"the key {key.value!r} is already in line {lines[name]}", key.start_mark)
        lines[name] = key.start_mark.line + 1


# -- files that extend others -----------------------------------------------------------------------------------------


def read_extended(path: Path, *, where: str = "CONFIG") -> dict[str, Any]:
    """The content of a YAML file, laid over the files that its ``extends`` names, in their order.

    Args:
        where: what named the file, for errors.

    Returns:
        The sections, not checked yet. Each text in them is a ``LocatedText``: it remembers the folder of its file.

    Raises:
        ConfigError: a file is missing, is not YAML, or extends itself.
    """
    return _read_extended(path, where, ())


def _read_extended(path: Path, where: str, extending: tuple[Path, ...]) -> dict[str, Any]:
    file = path_below(Path.cwd(), path, where=where).resolve()
    if file in extending:
        raise ConfigError("extends", f"{str(path)!r} extends itself", "take it out")
    raw = _read(path, where)
    merged: dict[str, Any] = {}
    for name in _extends(raw):
        base = path_below(path.parent, name, where="extends")
        merged = laid_over(merged, _read_extended(base, f"extends ({path.name})", (*extending, file)))
    return laid_over(merged, raw)


def extended_files(path: Path) -> list[Path]:
    """The files that a configuration extends, directly or not; absolute.

    Raises:
        ConfigError: a file cannot be read.
    """
    files = [path_below(path.parent, name, where="extends") for name in _extends(_read(path, "CONFIG"))]
    return [*files, *(below for file in files for below in extended_files(file))]


def _extends(raw: dict[str, Any]) -> list[str]:
    """The files that a file extends; the section is taken out."""
    extended = raw.pop("extends", None) or []
    names = [extended] if isinstance(extended, str) else extended
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("extends", f"{extended!r} cannot be used", "name a YAML file, or write a list of them")
    return names


def path_below(folder: Path, name: str | Path, *, where: str) -> Path:
    """The absolute path that a user named, relative to a folder.

    Raises:
        ConfigError: it cannot be a path, or no user of this name has a home.
    """
    try:
        return absolute_path(folder / Path(name).expanduser())
    except (RuntimeError, ValueError) as error:
        raise ConfigError(where, f"{str(name)!r} is not a path ({error})", "name another") from None


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            where, f"{str(path)!r} does not exist", "name a YAML file, such as those in configs/"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(where, f"{str(path)!r} cannot be read ({error})", "name a readable YAML file") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(where, f"{str(path)!r} is not valid YAML ({line}{problem})", "correct that line") from None
    if not isinstance(raw, dict):
        raise ConfigError(where, f"{str(path)!r} has no sections", "write at least models: and tasks:")
    return cast("dict[str, Any]", _located(raw, absolute_path(path.parent)))


def _located(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {name: _located(below, folder) for name, below in value.items()}
    if isinstance(value, list):
        return [_located(below, folder) for below in value]
    return LocatedText(value, folder) if isinstance(value, str) else value


# -- sections laid over sections --------------------------------------------------------------------------------------

_ALTERNATIVES = {"steps": "epochs", "epochs": "steps"}
"""Two ways to state the length of a search."""


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Merge sections option by option; any other value, lists included, is replaced.

    A section of another ``kind`` replaces the one below it, since the options of one kind mean nothing to another. A
    section that does not name its kind changes options of the one below it; a section of ``models`` that names a
    ``model`` is an endpoint. ``optimizer.steps`` and ``optimizer.epochs`` replace each other.

    Args:
        base: the sections below; they are not changed.
        changes: the sections above.
        path: of both within the configuration, such as ``optimizer.schedule``.
    """
    merged = dict(base)
    for name, value in changes.items():
        below, here = merged.get(name), f"{path}.{name}".removeprefix(".")
        if isinstance(below, dict) and isinstance(value, dict) and _is_same_kind(below, value, here):
            merged[name] = laid_over(below, value, here)
        else:
            merged[name] = value
    if path == "optimizer":
        drop_alternative(merged, changes)
    return merged


def drop_alternative(optimizer: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Drop ``steps`` if the changes set ``epochs``, and the other way round."""
    for option, other in _ALTERNATIVES.items():
        if changes.get(option) is not None and other not in changes:
            optimizer.pop(other, None)


def _is_same_kind(below: Mapping[str, Any], value: Mapping[str, Any], path: str) -> bool:
    known = below.get("kind", default_kinds().get(path))
    if path.startswith("models.") and "model" in value and "kind" not in value:
        return bool(known == "openai")
    return bool(value.get("kind", known) == known)


@cache
def default_kinds() -> Mapping[str, str]:
    """The kind of each section that does not name one, by the section's path."""
    found = {}
    for path, field in declared(RunConfig):
        sections = sections_in(field.annotation)
        kind = sections[0].model_fields.get("kind") if sections else None
        if kind is not None and kind.default not in (None, PydanticUndefined):
            found[path] = kind.default
    return found
