"""JSON Lines and CSV files as examples."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo.errors import ConfigError
from gpo.examples import Example


@dataclass(frozen=True, slots=True)
class Fields:
    """Which columns hold an example's input and its target."""

    input: str = "input"
    target: str = "target"


def read_examples(path: Path, fields: Fields, *, where: str) -> tuple[Example, ...]:
    """The examples of a ``.jsonl`` or ``.csv`` file (UTF-8), in order; blank lines are skipped.

    A target may be a text, a number, a boolean, or a list of alternatives.

    Args:
        where: the setting that named the file, for errors.

    Raises:
        ConfigError: no such file, another format, half a line, a missing column or value, or no example at all.
    """
    rows = _rows(path, where)
    examples = tuple(_example(row, fields, f"{where} ({path.name}:{line})") for line, row in rows)
    if not examples:
        raise ConfigError(where, f"{str(path)!r} holds no example", "every split needs at least one")
    return examples


def _rows(path: Path, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(where, f"{str(path)!r} is neither .jsonl nor .csv", "convert it to one of these")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(where, f"{str(path)!r} does not exist", "correct the path, or put the file there") from None
    except UnicodeDecodeError as error:
        raise ConfigError(where, f"{str(path)!r} is not UTF-8 ({error.reason})", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(where, f"{str(path)!r} cannot be read ({error.strerror})", "make it readable") from None
    return reader(text, f"{where} ({path.name}")


def _json_lines(text: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"{where}:{number})", f"not valid JSON ({error.msg})", "put one complete JSON object on each line"
            ) from None
        if not isinstance(row, dict):
            raise ConfigError(
                f"{where}:{number})", f"a JSON {type(row).__name__}, not an object", "write {…} with named fields"
            )
        yield number, row


def _csv(text: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    del where  # every text is valid CSV
    reader = csv.DictReader(text.splitlines(keepends=True))
    for row in reader:
        yield reader.line_num, row


_READERS = {".jsonl": _json_lines, ".csv": _csv}


def _example(row: Mapping[str, Any], fields: Fields, where: str) -> Example:
    values: list[Any] = []
    for role, column in (("input", fields.input), ("target", fields.target)):
        if column not in row:
            present = ", ".join(str(name) for name in row)
            raise ConfigError(
                where,
                f"there is no column {column!r}; the columns are: {present}",
                f"set fields.{role} to the column that holds the {role}",
            )
        if row[column] in (None, "", []):
            raise ConfigError(where, f"column {column!r} is empty", "fill it in, or take the example out")
        values.append(row[column])
    text, target = values
    targets = target if isinstance(target, list) else [target]
    return Example(input=str(text), targets=tuple(str(alternative) for alternative in targets))
