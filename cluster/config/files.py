"""Reading configuration files: plain YAML, ``extends``, and sections laid over sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from gpo.errors import ConfigError

MAX_CHARACTERS = 10_000_000
MAX_VALUES = 200_000
"""Counted as often as they are used: ten lists, each of ten times the one before, would be ten billion."""
MAX_NESTING = 100


class UnfitYaml(yaml.YAMLError):
    """A text that cannot be read, or is larger, or nested more deeply, than any configuration; ``problem`` says how."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def read_yaml(text: str) -> Any:
    """The value in a text; only plain ones: nothing in it is run, and no class is looked up.

    Raises:
        yaml.YAMLError: it is not YAML, or beyond the bounds.
        ValueError: it holds what looks like a number or a date and is none.
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
        # PyYAML's own way of saying that a tag does not fit what it stands before, as in "!!int []" or "!!float".
        raise UnfitYaml(f"a tag that does not fit its value ({type(error).__name__})") from None


_TOO_DEEP = f"nested more than {MAX_NESTING} deep, or within itself"


def _num_values(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """How many values a node stands for, all that it refers to included."""
    if depth > MAX_NESTING:
        raise UnfitYaml(_TOO_DEEP)
    if id(node) in known:
        return known[id(node)]
    count = 1
    if isinstance(node, yaml.MappingNode):
        count += sum(_num_values(part, known, depth + 1) for entry in node.value for part in entry)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_num_values(part, known, depth + 1) for part in node.value)
    if count > MAX_VALUES:
        raise UnfitYaml(f"more than {MAX_VALUES:,} values")
    known[id(node)] = count
    return count


_DEFAULT_KINDS = {
    "models.task": "openai",
    "models.optimizer": "openai",
    "models.judge": "openai",
    "models.embedding": "embedded",
    "cache": "sqlite",
    "optimizer.direction.trajectory": "retrieval",
    "optimizer.schedule": "cosine",
    "optimizer.refinement": "generation",
    "optimizer.acceptance": "best_of_step",
}
"""Section → the kind that it is of where it does not say."""

_ONE_OF = {"steps": "epochs", "epochs": "steps"}
"""Two ways to say how long a search is."""


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Sections merged option by option; anything else, lists too, is replaced.

    A section of another ``kind`` replaces the one below it: the options of one kind mean nothing to another. A section
    that does not name its kind changes options of the one below it; a model that is named is one of an endpoint.
    ``optimizer.steps`` and ``optimizer.epochs`` take each other's place.

    Args:
        place: of both within the whole, such as ``optimizer.schedule``.
    """
    merged = dict(base)
    for name, value in changes.items():
        below, here = merged.get(name), f"{place}.{name}".removeprefix(".")
        if isinstance(below, dict) and isinstance(value, dict) and _is_same_kind(below, value, here):
            merged[name] = laid_over(below, value, here)
        else:
            merged[name] = value
    if place == "optimizer":
        take_the_place_of_the_other(merged, changes)
    return merged


def take_the_place_of_the_other(optimizer: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Drop ``steps`` where the changes say ``epochs``, and the other way round."""
    for option, other in _ONE_OF.items():
        if changes.get(option) is not None and other not in changes:
            optimizer.pop(other, None)


def _is_same_kind(below: Mapping[str, Any], value: Mapping[str, Any], place: str) -> bool:
    known = below.get("kind", _DEFAULT_KINDS.get(place))
    if place.startswith("models.") and "model" in value and "kind" not in value:
        return bool(known == "openai")
    return bool(value.get("kind", known) == known)


_DATA_PATHS = ("root", "train", "val", "test", "few_shot")
_MODEL_PATHS = ("gguf", "api_key_file")


def read_extended(path: Path, *, where: str = "CONFIG") -> dict[str, Any]:
    """The content of a YAML file, laid over the files that its ``extends`` names, one after the other.

    Paths in a file that is extended start at that file's folder.

    Args:
        where: what named the file, for errors.

    Raises:
        ConfigError: a file is missing, no YAML, or extends itself.
    """
    return _read_extended(path, where, ())


def _read_extended(path: Path, where: str, extending: tuple[Path, ...]) -> dict[str, Any]:
    place = place_below(Path.cwd(), path, where=where)
    if place in extending:
        raise ConfigError("extends", f"{str(path)!r} extends itself", "take it out")
    raw = _read(path, where)
    extended = raw.pop("extends", None) or []
    names = [extended] if isinstance(extended, str) else extended
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("extends", f"{extended!r} cannot be used", "name a YAML file, or write a list of them")
    merged: dict[str, Any] = {}
    for name in names:
        base = place_below(path.parent, name, where="extends")
        below = _read_extended(base, f"extends ({path.name})", (*extending, place))
        _start_paths_at(below, base.parent.resolve())
        merged = laid_over(merged, below)
    return laid_over(merged, raw)


def place_below(folder: Path, name: str | Path, *, where: str) -> Path:
    """The absolute path of what a user named, relative to a folder.

    Raises:
        ConfigError: no path can be called this, or no user of this name has a home.
    """
    try:
        return (folder / Path(name).expanduser()).resolve()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(where, f"{str(name)!r} is no path ({error})", "name another") from None


def _start_paths_at(raw: dict[str, Any], folder: Path) -> None:
    """Make the relative paths in a file's sections absolute."""
    sweep = raw.get("sweep")
    holdout = sweep.get("holdout") if isinstance(sweep, dict) else None
    lists = [section.get("tasks") for section in (raw, holdout) if isinstance(section, dict)]
    for task in [task for tasks in lists if isinstance(tasks, list) for task in tasks]:
        data, answer = (task.get(name) if isinstance(task, dict) else None for name in ("data", "answer"))
        # With a hub's data set, the splits are no paths, and its name is one only where it looks like one.
        if isinstance(data, dict):
            is_place = str(data.get("huggingface")).startswith(".")
            _absolute(data, _DATA_PATHS if "huggingface" not in data else ("huggingface",) * is_place, folder)
        if isinstance(answer, dict) and any(":" in str(answer.get(name)) for name in ("metric", "parser")):
            answer.setdefault("folder", ".")
            _absolute(answer, ("folder",), folder)
    models = raw.get("models")
    for model in models.values() if isinstance(models, dict) else []:
        if isinstance(model, dict):
            _absolute(model, _MODEL_PATHS, folder)
    methods = raw.get("compare")
    if isinstance(methods, dict):
        _absolute(methods, [name for name, entry in methods.items() if _is_file(entry)], folder)
    elif isinstance(methods, list):
        raw["compare"] = [
            str(place_below(folder, entry, where="compare")) if _is_file(entry) else entry for entry in methods
        ]


def _is_file(entry: Any) -> bool:
    return isinstance(entry, str) and Path(entry).suffix in (".yaml", ".yml")


def _absolute(section: dict[str, Any], options: Iterable[str], folder: Path) -> None:
    for option in options:
        if isinstance(section.get(option), str):
            section[option] = str(place_below(folder, section[option], where=option))


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
        raise ConfigError(where, f"{str(path)!r} holds no sections", "write at least models: and tasks:")
    return cast("dict[str, Any]", raw)
