"""What the columns of a data file look like, and which hold the input and the target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from cluster.proposing.rows import Row
from gpo.errors import ConfigError
from gpo.text import abridged

FEW_VALUES = 20
"""At most this many different values are categories."""
_MOST = 0.95
"""Share of the cells that decides what a column looks like."""
_SHOWN = 40

_TARGETS = (
    *("target", "label", "answer", "output", "class", "category", "expected", "gold", "intent", "sentiment", "topic"),
    *("verdict", "rating", "score", "summary", "translation", "completion", "response", "reply", "reference", "result"),
)
_INPUTS = (
    "text",
    "input",
    "question",
    "prompt",
    "context",
    "message",
    "review",
    "title",
    "body",
    "sentence",
    "content",
)
_IDS = ("id", "uuid", "guid", "index", "idx", "pk")
_SPLIT_COLUMNS = ("split", "fold", "partition", "subset")
_SPLITS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing", "holdout")
_WHOLE = re.compile(r"\d{1,15}")
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?<=\d)")
"""A number alone, as a table writes it."""
_HASH = re.compile(r"(?=.*\d)[0-9a-fA-F]{16,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = r"(?:[T ,]+\d{1,2}:\d{2}.*)?"
_DATE = re.compile(rf"(?:\d{{4}}([-/.])\d{{1,2}}\1\d{{1,2}}|\d{{1,2}}([-/.])\d{{1,2}}\2(?:\d{{4}}|\d{{2}})){_TIME}")


def named(text: str) -> str:
    """A text of the file in quotes, at most about 40 characters, with escapes for all that cannot be printed."""
    return repr(abridged(text, _SHOWN))


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        values: one for each row; ``None`` where the row has none, or one that is blank or NaN.
    """

    name: str
    values: tuple[Any, ...]

    @cached_property
    def filled(self) -> tuple[Any, ...]:
        """The values without those that are missing."""
        return tuple(value for value in self.values if value is not None)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The filled values as texts without white space around them."""
        return tuple(str(value).strip() for value in self.filled)

    @cached_property
    def distinct(self) -> frozenset[str]:
        """The different texts."""
        return frozenset(self.texts)

    @property
    def words(self) -> list[str]:
        """The words of the name, in lower case and in the singular."""
        apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", self.name)
        return [word.lower().removesuffix("s") for word in re.findall(r"[^\W\d_]+", apart)]

    @cached_property
    def is_nested(self) -> bool:
        """Whether any value is a list or an object."""
        return any(isinstance(value, list | tuple | dict) for value in self.filled)

    @cached_property
    def is_number(self) -> bool:
        """Whether all values are numbers."""
        return bool(self.texts) and all(NUMBER.fullmatch(text) for text in self.texts)

    @property
    def is_category(self) -> bool:
        """Whether there are few values, each repeated."""
        return not self.is_nested and 2 <= len(self.distinct) <= min(FEW_VALUES, len(self.texts) // 2)

    def share(self, pattern: re.Pattern[str]) -> float:
        """The share of filled values that a pattern describes as a whole."""
        return sum(pattern.fullmatch(text) is not None for text in self.texts) / max(1, len(self.texts))

    @property
    def reason(self) -> str | None:
        """Why the column is neither input nor target by itself; ``None`` if it can be."""
        words, texts = self.words or [""], self.texts
        if not texts:
            return "is empty"
        if self.is_nested:
            return "holds lists or objects"
        if len(self.distinct) == 1 < len(texts) == len(self.values):
            return "always has the same value"
        if self._names_splits:
            return "seems to name splits"
        is_whole = all(_WHOLE.fullmatch(text) for text in texts)
        if (words[-1] in _IDS or words[0] == "unnamed") and not any(" " in text for text in texts):
            return "looks like an id"
        is_distinct = len(self.distinct) == len(texts) > 2
        if is_distinct and is_whole and _are_consecutive(sorted(map(int, texts))):
            return "looks like an id"
        if is_distinct and self.share(_HASH) >= _MOST:
            return "looks like an id"
        if self.share(_DATE) >= _MOST or (words[-1] in ("timestamp", "datetime") and is_whole):
            return "looks like a date"
        return None

    @property
    def _names_splits(self) -> bool:
        if self.name.strip().lower() in _SPLITS:
            return True
        values = {text.lower() for text in self.distinct}
        return (self.words[-1:] and self.words[-1] in _SPLIT_COLUMNS and len(values) <= FEW_VALUES) or (
            len(values) > 1 and values <= {*_SPLITS}
        )


def _are_consecutive(numbers: Sequence[int]) -> bool:
    return numbers[0] in (0, 1) and all(after - before == 1 for before, after in pairwise(numbers))


def columns_of(rows: Sequence[Row]) -> dict[str, Column]:
    """The columns of all rows by name, in the order in which they first appear."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: Column(name, tuple(_value(row.get(name)) for row in rows)) for name in names}


def _value(value: Any) -> Any:
    return None if value is None or not str(value).strip() or str(value).strip() in ("nan", "NaN") else value


def target_of(columns: dict[str, Column], wanted: str | None) -> tuple[Column, list[str]]:
    """The column with the right answers, and what is doubtful about the choice.

    Args:
        wanted: the column that the user names.

    Raises:
        ConfigError: there is no such column, or none looks like a target.
    """
    listed = ", ".join(map(named, columns))
    if not columns:
        raise ConfigError("FILE", "has no headings", "write the names of the columns into the first line")
    if len(columns) < 2:
        raise ConfigError(
            "FILE", f"has only the column {listed}", "a task needs two: the input, and the right answer as target"
        )
    if wanted is not None:
        if wanted not in columns:
            raise ConfigError("--target", f"there is no column {named(wanted)}", f"name one of: {listed}")
        return columns[wanted], []
    fit = [column for column in columns.values() if column.reason is None or _is_list_of_texts(column)]
    categories = [column for column in fit if column.is_category and not _is_input(column)]
    by_name = sorted((column for column in fit if _rank(column) is not None), key=lambda one: _rank(one) or (True, 0))
    if by_name:
        is_whole = (_rank(by_name[0]) or (True, 0))[0] is False
        return by_name[0], _doubts(by_name[0], "its name", by_name if is_whole else [*by_name, *categories])
    if categories:
        return categories[-1], _doubts(categories[-1], "its few different values", categories, is_guess=True)
    if len(fit) == 2:
        last = [column for column in fit if not _is_input(column)] or fit
        return last[-1], _doubts(last[-1], "being one of two columns", [], is_guess=True)
    constant = [one.name for one in columns.values() if one.reason == "always has the same value"]
    about = f" ({named(constant[0])} always has the same value)" if constant else ""
    raise ConfigError(
        "FILE", f"no column looks like the right answer{about}; the columns are: {listed}", "name it with --target"
    )


def _is_list_of_texts(column: Column) -> bool:
    return all(
        isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value)
        for value in column.filled
    ) and bool(column.filled)


def _rank(column: Column) -> tuple[bool, int] | None:
    """The rank of a name among those of targets: such a word alone, then a name that ends with one, or has a number."""
    words = column.words
    if not words or words[-1] not in _TARGETS:
        return None
    return column.name.strip().lower().removesuffix("s") != words[-1], _TARGETS.index(words[-1])


def _is_input(column: Column) -> bool:
    return bool(column.words) and column.words[-1] in _INPUTS


def _doubts(chosen: Column, why: str, candidates: Sequence[Column], *, is_guess: bool = False) -> list[str]:
    others = dict.fromkeys(named(column.name) for column in candidates if column is not chosen)
    if not is_guess and not others:
        return []
    more = f" These could be the target, too: {', '.join(others)}." if others else ""
    return [f"Column {named(chosen.name)} is taken as the target because of {why}.{more} To choose another: --target."]
