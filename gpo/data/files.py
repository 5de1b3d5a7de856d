"""Reads examples from JSON Lines and CSV files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo.data.example import Example
from gpo.data.template import Template
from gpo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Fields:
    """The sources of an example's input and target: each is a column or a template."""

    input: str | Template = "input"
    target: str | Template = "target"


def example_of(row: Mapping[str, Any], fields: Fields, where: str) -> Example:
    """Make an example from a row, a mapping of columns to values.

    A target may be a text, a number, a boolean, or a list of alternatives.

    Args:
        where: location of the row, for errors.

    Raises:
        ConfigError: a column is missing, empty, or has a value of another type.
    """
    text, *more = _texts(row, fields.input, "input", where)
    if more:
        raise ConfigError(where, f"column {fields.input!r} is a list", "an example has one input")
    return Example(input=text, targets=tuple(_texts(row, fields.target, "target", where)))


def _texts(row: Mapping[str, Any], source: str | Template, role: str, where: str) -> list[str]:
    if isinstance(source, Template):
        return [source.rendered(row, where)]
    if source not in row:
        raise ConfigError(
            where,
            f"there is no column {source!r}; the columns are: {', '.join(str(name) for name in row)}",
            f"set fields.{role} to the column that holds the {role}",
        )
    return cell_texts(row[source], source, where)


def cell_texts(value: Any, column: str, where: str) -> list[str]:
    """The texts of a cell with a text, a number, a boolean, or a list of alternatives; at least one.

    Args:
        column, where: column and location of the cell, for errors.

    Raises:
        ConfigError: the cell is empty or has a value of another type.
    """
    alternatives = value if isinstance(value, list) else [value]
    if not alternatives or any(item is None or not str(item).strip() for item in alternatives):
        raise ConfigError(where, f"column {column!r} is empty", "fill it in, or remove the example")
    if not all(isinstance(item, str | int | float) for item in alternatives):
        raise ConfigError(where, f"column {column!r} contains an object or a nested list", "make it a plain value")
    texts = [str(item) for item in alternatives]
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise ConfigError(where, f"column {column!r} contains a lone surrogate", "write the whole character")
    return texts


def read_examples(path: Path, fields: Fields, *, where: str) -> tuple[Example, ...]:
    """Read the examples of a ``.jsonl`` or ``.csv`` file (UTF-8) in order; blank lines are skipped.

    A target may be a text, a number, a boolean, or a list of alternatives. Line ends in a quoted CSV cell are kept.

    Args:
        where: the setting that names the file, for errors.

    Raises:
        ConfigError: the file does not exist, has another format, an incomplete line, a missing column or value, or no
            example.
    """
    rows = _rows(path, where)
    examples = tuple(example_of(row, fields, f"{where} ({path.name}:{line})") for line, row in rows)
    if not examples:
        raise ConfigError(where, f"{str(path)!r} contains no example", "every split needs at least one")
    return examples


def read_json_lines(path: Path, *, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Read the objects of a JSON Lines file (UTF-8) with their line numbers, in order; blank lines are skipped.

    Args:
        where: the setting that names the file, for errors.

    Raises:
        ConfigError: the file does not exist, has an incomplete line, or a line that is not an object.
    """
    return _json_lines(read_text(path, where), f"{where} ({path.name}")


def _rows(path: Path, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(where, f"{str(path)!r} is neither .jsonl nor .csv", "convert it to one of these")
    return reader(read_text(path, where), f"{where} ({path.name}")


def read_text(path: Path, where: str) -> str:
    """Read a text file (UTF-8; a byte order mark is removed).

    Raises:
        ConfigError: the file does not exist, is not readable, or has another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(where, f"{str(path)!r} does not exist", "correct the path, or put the file there") from None
    except UnicodeDecodeError as error:
        raise ConfigError(where, f"{str(path)!r} is not UTF-8 ({error.reason})", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(where, f"{str(path)!r} cannot be read ({error.strerror})", "make it readable") from None


def _json_lines(text: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Not splitlines: JSON strings may contain other line separators (U+2028, form feed).
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # huge numbers, deeply nested lists
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition(";")[0]
            raise ConfigError(
                f"{where}:{number})", f"not valid JSON ({reason})", "put one complete JSON object on each line"
            ) from None
        if not isinstance(row, dict):
            raise ConfigError(
                f"{where}:{number})", f"a JSON {type(row).__name__}, not an object", "write {…} with named fields"
            )
        yield number, row


def _csv(text: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Strict, since an unclosed quote would otherwise include the rest of the file.
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        headings = [heading for heading in reader.fieldnames or () if heading.strip()]
        for heading in headings:
            if headings.count(heading) > 1:
                raise ConfigError(f"{where}:1)", f"two columns are named {heading!r}", "use unique headings")
        for row in reader:
            cells: dict[str | None, Any] = dict(row)
            more = cells.pop(None, [])  # cells without a heading
            if not any((cell or "").strip() for cell in (*cells.values(), *more)):
                continue
            if more:
                raise ConfigError(
                    f"{where}:{reader.line_num})",
                    f"there are {len(cells) + len(more)} cells for {len(cells)} headings",
                    "put quotes around a cell that contains a comma",
                )
            yield reader.line_num, row
    except csv.Error as error:
        # ``line_num`` is that of the last valid row.
        raise ConfigError(
            f"{where}:{reader.line_num + 1})",
            f"not valid CSV ({error})",
            "close every quote, and double quotes in a cell",
        ) from None


_READERS = {".jsonl": _json_lines, ".csv": _csv}
