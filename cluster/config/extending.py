"""Configurations made of several files: one that extends others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import yaml

from cluster.config.layers import laid_over
from cluster.config.yaml_text import read_yaml
from gpo.errors import ConfigError

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
