"""From a YAML file and ``--set`` options to a checked configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster.config.files import UnfitYaml, drop_alternative, read_extended, read_yaml
from cluster.config.run import RunConfig
from cluster.config.section import AllowedPaths, OptionInfo, Section, sections_in
from gpo.errors import ConfigError
from gpo.text import without_controls

_S = TypeVar("_S", bound=Section)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in a file, with overrides such as ``optimizer.steps=3``.

    Raises:
        ConfigError: names the first field that cannot be used, its value, and what to do.
    """
    return validate_run_file(read_overridden(path, overrides), path)


def validate_run_file(raw: Mapping[str, Any], path: Path) -> RunConfig:
    """Check the sections of a file that describes one run.

    Raises:
        ConfigError: as for ``load_config``.
    """
    if "compare" in raw:
        raise ConfigError("compare", "is a comparison of several methods", f"run it with: gpo compare {path}")
    if "sweep" in raw:
        raise ConfigError("sweep", "is a search for hyperparameters", f"run it with: gpo sweep {path}")
    return validate(raw, base_dir=path.parent)


def read_overridden(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The sections of a file and of those that it extends, with overrides applied, not checked yet.

    Raises:
        ConfigError: a file or an override cannot be used.
    """
    raw = read_extended(path)
    for override in overrides:
        _apply(raw, override)
    return raw


def validate(raw: Mapping[str, Any], base_dir: Path) -> RunConfig:
    """Check a configuration that was read before; relative paths in overrides start at ``base_dir``.

    Raises:
        ConfigError: as for ``load_config``.
    """
    return validate_section(RunConfig, raw, base_dir)


def validate_section(kind: type[_S], raw: Mapping[str, Any], base_dir: Path, allowed: AllowedPaths | None = None) -> _S:
    """Check a section of this kind, as ``validate`` does.

    Args:
        allowed: where it may name files and modules; ``None`` is everywhere.

    Raises:
        ConfigError: as for ``load_config``.
    """
    try:
        return kind.model_validate(raw, context={"base_dir": base_dir, "allowed": allowed})
    except ValidationError as error:
        raise _explained(error.errors(include_url=False)[0], kind, raw) from None


def dump(config: RunConfig) -> str:
    """The configuration as YAML, complete with defaults and absolute paths, in a form that ``gpo run`` accepts."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


_PART = re.compile(r"[^.\[\]]+")


def _apply(raw: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    parts = _PART.findall(name)
    if not separator or not parts:
        raise ConfigError("--set", f"{name!r} has no value", "write it as section.option=value")
    value = _value(name, text)
    here: Any = raw
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(here, list):
            index = int(part) if part.isdecimal() else -1
            if not 0 <= index < len(here):
                count = len(here)
                raise ConfigError(_option(name), f"{part!r} is not an index of the {count} entries", "count from 0")
            key: Any = index
        elif isinstance(here, dict):
            key = part
            if not last and here.get(key) is None:
                here[key] = {}
        else:
            raise ConfigError(_option(name), f"there is nothing below {'.'.join(parts[:depth])}", "correct the name")
        if last:
            here[key] = value
            if parts[:-1] == ["optimizer"]:
                drop_alternative(here, {key: value})
        else:
            here = here[key]


def _option(name: str) -> str:
    """The option in errors, in one line."""
    return without_controls(f"--set {' '.join(name.split())}")


def _value(name: str, text: str) -> Any:
    """A number, truth value, null, quoted text, list or section in brackets as in YAML, or else the text as typed.

    A text without quotes is not read as YAML, so that its colons, hashes and line breaks are kept.
    """
    marked = text.strip()[:1] in ("[", "{", "'", '"')
    try:
        value = read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a text that looks like a date, but is none
        if marked and isinstance(error, UnfitYaml):
            raise ConfigError(_option(name), f"{text!r} cannot be used ({error.problem})", "correct it") from None
        if marked:
            raise ConfigError(
                _option(name), f"{text!r} is not valid YAML", "close the brackets, or put quotes around a text"
            ) from None
        return text
    return value if marked or value is None or isinstance(value, bool | int | float) else text


_REMEDIES = {
    "missing": "set it",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "string_type": "write a text, in quotes if need be",
    "string_too_short": "write at least one character",
    "string_unicode": "write it without half characters (lone surrogates)",
    "string_pattern_mismatch": "use letters, digits, '.', '_' and '-', and begin with a letter or digit",
    "greater_than": "use a value above {gt}",
    "greater_than_equal": "use a value of at least {ge}",
    "less_than": "use a value below {lt}",
    "less_than_equal": "use a value of at most {le}",
    "literal_error": "choose one of: {expected}",
    "enum": "choose one of: {expected}",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "too_short": "give at least {min_length}",
    "tuple_type": "write a list",
    "model_type": "write a section with options",
    "dict_type": "write a section with options",
}


def _explained(error: ErrorDetails, section: type[Section], raw: Mapping[str, Any]) -> ConfigError:
    kind, context = error["type"], error.get("ctx", {})
    # Our validators name the option of the section in "at". A missing base URL may come from the environment.
    absent = kind in ("missing", "base_url")
    parts = [_path(error["loc"], raw, missing=absent), str(context.get("at", ""))]
    field = without_controls(" ".join(".".join(part for part in parts if part).split())) or "CONFIG"
    if kind == "missing":
        return ConfigError(field, "is missing", _REMEDIES[kind])
    if kind in _REMEDIES:
        value = "the value" if _may_be_secret(error["loc"], section) else _shown(error["input"])
        return ConfigError(field, f"{value} cannot be used", _REMEDIES[kind].format(**context))
    problem, _, remedy = error["msg"].partition("; ")
    if kind == "unknown_kind":
        problem = f"{_shown(error['input']['kind'])} {problem}"
    return ConfigError(field, problem, remedy or "correct it")


def _may_be_secret(location: Sequence[int | str], section: type[Section]) -> bool:
    """Whether the value may hold a key. Pydantic's location also names variants and indices."""
    sections = [section]
    for part in location:
        fields = [kind.model_fields[part] for kind in sections if part in kind.model_fields]
        if any(OptionInfo.of(field).sensitive for field in fields):
            return True
        if fields:
            sections = [below for field in fields for below in sections_in(field.annotation)]
    return False


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}…"


def _path(location: Sequence[int | str], raw: Any, *, missing: bool) -> str:
    """The path as the user wrote it; pydantic's location also contains the variant of a section."""
    path, data = "", raw
    for depth, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
            data = data[part] if isinstance(data, list) and part < len(data) else None
        elif isinstance(data, dict) and part in data:
            path += f".{part}"
            data = cast("dict[str, Any]", data)[part]
        elif missing and depth == len(location) - 1:
            path += f".{part}"
    return path.removeprefix(".")
