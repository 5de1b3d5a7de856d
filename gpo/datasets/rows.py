"""From a row, a mapping of columns to values, to an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpo.datasets.template import Template
from gpo.errors import ConfigError
from gpo.examples import Example


@dataclass(frozen=True, slots=True)
class Fields:
    """What an example's input and its target are: each a column, or a text made of several."""

    input: str | Template = "input"
    target: str | Template = "target"


def example_of(row: Mapping[str, Any], fields: Fields, where: str) -> Example:
    """The example in a row.

    A target may be a text, a number, a boolean, or a list of alternatives.

    Args:
        where: the row's place, for errors.

    Raises:
        ConfigError: a column is missing, empty, or holds something else.
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
    """The texts of a cell that holds a text, a number, a boolean, or a list of alternatives; at least one.

    Args:
        column: the cell's column, and ``where`` its place, for errors.

    Raises:
        ConfigError: it is empty, or holds something else.
    """
    alternatives = value if isinstance(value, list) else [value]
    if not alternatives or any(item is None or not str(item).strip() for item in alternatives):
        raise ConfigError(where, f"column {column!r} is empty", "fill it in, or take the example out")
    if not all(isinstance(item, str | int | float) for item in alternatives):
        raise ConfigError(where, f"column {column!r} holds an object or a nested list", "make it a plain value")
    texts = [str(item) for item in alternatives]
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise ConfigError(where, f"column {column!r} holds half a character (a lone surrogate)", "write it out in full")
    return texts
