"""Reads examples from JSON Lines and CSV files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gpo.data.example import Example
from gpo.data.template import ROW, Template
from gpo.errors import ConfigError

csv.field_size_limit(2**31 - 1)  # the default of the process is 131,072 characters a cell; for all files in `gpo.data`

_SEPARATORS = ",;\t|"
_STATED_SEPARATOR = re.compile(r"sep=(.)\r?\n")
"""The first line of some files from spreadsheets."""
_MISSING = ("nan", "NaN")
"""How programs write a missing value as a text."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The sources of an example's input and target: each is a column or a template.

    Attributes:
        input: ``None`` makes the input of the texts of the placeholders, one ``name: text`` a line; without
            placeholders, of all columns but the target's.
        placeholders: the different placeholders of the task's prompt, in order; empty if it is no template.
        keeps_rows: whether examples keep all columns, for the user's own metric.
    """

    input: str | Template | None = "input"
    target: str | Template = "target"
    placeholders: tuple[Template, ...] = ()
    keeps_rows: bool = False

    @property
    def columns(self) -> frozenset[str]:
        """The columns that input, target and placeholders need; with ``row`` if a template uses the whole row.

        Raises:
            ConfigError: a template is invalid.
        """
        sources = (self.input, self.target, *self.placeholders)
        each = (source.variables if isinstance(source, Template) else (source,) for source in sources if source)
        return frozenset(name for names in each for name in names)


_FILL_IN = "fill it in, or remove the example"
_COLUMN = re.compile(r"""row\["([^"]+)"\]|row\['([^']+)'\]|row\.(\w+)|(\w+)""")


def example_of(row: Mapping[str, Any], fields: Fields, where: str) -> Example:
    """Make an example from a row, a mapping of columns to values.

    A target may be a text, a number, a boolean, or a list of alternatives.

    Args:
        where: location of the row, for errors.

    Raises:
        ConfigError: a column is missing, empty, or has a value of another type.
    """
    filled = tuple((one.source, one.filled(row, where)) for one in fields.placeholders)
    if filled and not any(text.strip() for _, text in filled):
        raise ConfigError(where, "the columns of all placeholders are empty", _FILL_IN)
    if fields.input is None:
        shown = [(_name(source), text) for source, text in filled]
        if not fields.placeholders:
            hidden = fields.target.variables if isinstance(fields.target, Template) else {fields.target}
            shown = [(name, value) for name, value in row.items() if name not in hidden]
        text, more = "\n".join(f"{name}: {value}" for name, value in shown), []
    else:
        text, *more = _texts(row, fields.input, "input", where)
    if more:
        raise ConfigError(where, f"column {fields.input!r} is a list", "an example has one input")
    targets = tuple(_texts(row, fields.target, "target", where))
    for target in targets:
        if target.strip() in _MISSING:
            raise ConfigError(where, f"the target is {target.strip()!r}, a missing value", _FILL_IN)
    return Example(input=text, targets=targets, placeholder_texts=filled, row=dict(row) if fields.keeps_rows else {})


def _name(placeholder: str) -> str:
    """The column of a placeholder without its filters; else the expression."""
    expression = placeholder.strip("{} ")
    found = _COLUMN.fullmatch(expression.split("|")[0].strip())
    return found[found.lastindex or 0] if found else expression


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
        raise ConfigError(where, f"column {column!r} is empty", _FILL_IN)
    if any(isinstance(item, float) and not math.isfinite(item) for item in alternatives):
        raise ConfigError(where, f"column {column!r} is NaN or infinite, which JSON does not have", _FILL_IN)
    if not all(isinstance(item, str | int | float) for item in alternatives):
        raise ConfigError(where, f"column {column!r} contains an object or a nested list", "make it a plain value")
    # Decimal writes large and small numbers without an exponent.
    texts = [format(Decimal(str(item)), "f") if isinstance(item, float) else str(item) for item in alternatives]
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise ConfigError(where, f"column {column!r} contains a lone surrogate", "write the whole character")
    return texts


def read_examples(path: Path, fields: Fields, *, where: str) -> tuple[Example, ...]:
    """The examples of a file in order; see ``read_numbered``."""
    return tuple(read_numbered(path, fields, where=where).values())


def read_numbered(path: Path, fields: Fields, *, where: str) -> dict[int, Example]:
    """Read the examples of a ``.jsonl``, ``.csv`` or ``.tsv`` file (UTF-8) by line, in order; blank lines are skipped.

    A target may be a text, a number, a boolean, or a list of alternatives. The cells of a table are separated by
    commas, semicolons, tabs or bars, whichever gives the columns that are needed. White space around headings does not
    count. Line ends in a quoted cell are kept.

    Args:
        where: the setting that names the file, for errors.

    Raises:
        ConfigError: the file does not exist, has another format, an incomplete line, a missing column or value, or no
            example.
    """
    rows = read_rows(path, fields.columns - {ROW}, where=where)
    examples = {line: example_of(row, fields, f"{where} ({path.name}:{line})") for line, row in rows}
    if not examples:
        raise ConfigError(where, f"{str(path)!r} contains no example", "every split needs at least one")
    return examples


def read_rows(path: Path, columns: frozenset[str], *, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Read the rows of a ``.jsonl``, ``.csv`` or ``.tsv`` file as ``read_numbered`` does, with their line numbers.

    Args:
        columns: those that are needed; they decide what separates the cells of a table.
        where: the setting that names the file, for errors.

    Raises:
        ConfigError: the file does not exist, has another format, or an incomplete line.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".csv", ".tsv"):
        raise ConfigError(where, f"{str(path)!r} is neither .jsonl nor .csv nor .tsv", "convert it to one of these")
    text, location = read_text(path, where), f"{where} ({path.name}"
    return _json_lines(text, location) if suffix == ".jsonl" else _table(text, columns, location)


def read_json_lines(path: Path, *, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Read the objects of a JSON Lines file (UTF-8) with their line numbers, in order; blank lines are skipped.

    Args:
        where: the setting that names the file, for errors.

    Raises:
        ConfigError: the file does not exist, has an incomplete line, or a line that is not an object.
    """
    return _json_lines(read_text(path, where), f"{where} ({path.name}")


def read_text(path: Path, where: str) -> str:
    """Read a text file (UTF-8; a byte order mark is removed).

    Raises:
        ConfigError: the file does not exist, is not readable, or has another encoding.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(where, f"{str(path)!r} does not exist", "correct the path, or put the file there") from None
    except UnicodeDecodeError as error:
        raise ConfigError(where, f"{str(path)!r} is not UTF-8 ({error.reason})", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(where, f"{str(path)!r} cannot be read ({error.strerror})", "make it readable") from None
    if "\0" in text:
        raise ConfigError(
            where, f"{str(path)!r} holds NUL characters, as UTF-16 read as UTF-8 does", "save it as UTF-8"
        )
    return text


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


def _table(text: str, columns: frozenset[str], where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    stated = _STATED_SEPARATOR.match(text)
    separator = stated[1] if stated else max(_SEPARATORS, key=lambda one: _fitness(text, one, columns))
    if stated:
        text = text[stated.end() - 1 :]  # keeps the line's end, so that lines are counted as in the file
    reader = _reader(text, separator)
    line = 1
    try:
        headings = _headings(reader)
        repeated = next((heading for heading in headings if heading and headings.count(heading) > 1), None)
        if repeated is not None:
            problem = f"two columns are named {repeated!r}"
            raise ConfigError(f"{where}:{reader.line_num})", problem, "use unique headings")
        line = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if any(cell.strip() for cell in cells[len(headings) :]):
                    raise ConfigError(
                        f"{where}:{line})",
                        f"there are {len(cells)} cells for {len(headings)} headings",
                        f"put quotes around a cell that contains a {_SEPARATOR_NAMES.get(separator, repr(separator))}",
                    )
                yield (
                    line,
                    {heading: cell for heading, cell in zip_longest(headings, cells[: len(headings)]) if heading},
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(
            f"{where}:{line})", f"not valid CSV ({error})", "close every quote, and double quotes in a cell"
        ) from None


_SEPARATOR_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


def _reader(text: str, separator: str) -> Any:
    """A reader of the rows; spaces after a separator are skipped where the headings have some."""
    first_line = re.split(r"[\r\n]", text.lstrip("\r\n")[:10_000], maxsplit=1)[0]
    # Strict, since an unclosed quote would otherwise include the rest of the file.
    return csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        strict=True,
        skipinitialspace=f"{separator} " in first_line,
    )


def _headings(reader: Any) -> list[str]:
    """The cells of the first row that is not blank, without white space around them."""
    return [heading.strip() for heading in next(filter(None, reader), [])]


def _fitness(text: str, separator: str, columns: frozenset[str]) -> tuple[int, int]:
    """How many of the columns that are needed a separator gives, and how many columns there are."""
    try:
        headings = _headings(_reader(text[:100_000], separator))
    except csv.Error:
        return 0, 0
    return len(columns & {*headings}), len(headings)
