"""The rows of the file or data set that ``gpo init`` is given."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from gpo.data.files import read_rows
from gpo.data.huggingface import HubDataset
from gpo.data.template import ROW
from gpo.errors import ConfigError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SUFFIXES = (".jsonl", ".csv", ".tsv")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Data:
    """All rows of a file or a data set.

    Attributes:
        source: where they come from: a file, or a data set.
        parts: by the name of the split in a data set, the rows by number; a file has one part, named ``""``, whose rows
            are numbered by line. No part is empty.
    """

    source: Path | HubDataset
    parts: Mapping[str, Mapping[int, Row]]

    @property
    def rows(self) -> list[Row]:
        """All rows, part after part."""
        return list(chain.from_iterable(part.values() for part in self.parts.values()))

    @property
    def name(self) -> str:
        """A name for the task: letters, digits, ``.``, ``_`` and ``-``."""
        whole = self.source.stem if isinstance(self.source, Path) else self.source.id.rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", whole).strip("-._")[:100] or "task"

    def with_values(self, column: str) -> Data:
        """The data without the parts in which a column has no value at all; the same if none has one."""
        parts = {
            name: rows for name, rows in self.parts.items() if any(row.get(column) is not None for row in rows.values())
        }
        return replace(self, parts=parts or self.parts)

    @property
    def places(self) -> list[str]:
        """Where each row is, such as ``line 3``."""
        return [
            f"{part} row {number}" if part else f"line {number}" for part, rows in self.parts.items() for number in rows
        ]


def read_data(name: str, config: str | None, columns: frozenset[str]) -> Data:
    """Read all rows of a file, or of a data set of the Hugging Face Hub.

    Args:
        name: the path of a ``.jsonl``, ``.csv`` or ``.tsv`` file; ``owner/name`` on the Hub; or the path of a folder
            that the package ``datasets`` can read.
        config: the configuration of the data set; ``None`` if it has only one.
        columns: those that the user names; they help to find what separates the cells of a table.

    Raises:
        ConfigError: there is no such file or data set, it cannot be read, or has no rows.
    """
    path = Path(name)
    is_folder = os.path.isdir(name)  # noqa: PTH112  # false for names that cannot be a path
    if is_folder or (_HUB_NAME.fullmatch(name) and path.suffix.lower() not in _SUFFIXES and not path.exists()):
        return _hub_data(str(path.resolve()) if is_folder else name, config)
    if config is not None:
        raise ConfigError("--config", f"{name!r} is a file, which has no configurations", "leave the option out")
    if path.suffix.lower() not in _SUFFIXES and not path.exists():
        remedy = "name a .csv, .tsv or .jsonl file, or a data set of the Hugging Face Hub as owner/name"
        raise ConfigError("FILE", f"{name!r} does not exist", remedy)
    rows = dict(read_rows(path, columns, where="FILE"))
    if not rows:
        raise ConfigError("FILE", f"{name!r} contains no example", "add rows, one example each, below the headings")
    return Data(path, {"": rows})


def _hub_data(name: str, config: str | None) -> Data:
    source, where = HubDataset(name, config), "FILE"
    try:
        names = source.split_names(where=where)
        parts = {one: dict(enumerate(source.rows(one, frozenset({ROW}), where=where, at="split"))) for one in names}
    except ConfigError as error:
        if error.field == f"{where}.config":
            raise ConfigError("--config", error.problem, error.remedy) from None
        raise ConfigError(where, error.problem, error.remedy) from None
    parts = {one: rows for one, rows in parts.items() if rows}
    if not parts:
        raise ConfigError("FILE", f"{name!r} contains no example", "name another data set")
    return Data(source, parts)
