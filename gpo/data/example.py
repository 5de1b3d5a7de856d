"""One labelled example of a task, and the kind of answer that examples have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_LETTER = re.compile(r"\([A-Z]\)")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_VERDICTS = {"yes", "no", "true", "false", "valid", "invalid"}


@dataclass(frozen=True, slots=True)
class Example:
    """An input and its right answers.

    ``targets`` has at least one entry; several are alternatives, such as the references of a text generation task.

    Attributes:
        placeholder_texts: the placeholders of the task's template, such as ``{{ ticket }}``, each with the text that it
            stands for; empty if the prompt is no template.
        row: all columns of the example in its file, for the user's own metric; empty where no metric needs them.
            ``example["column"]`` is one of them.
    """

    input: str
    targets: tuple[str, ...]
    placeholder_texts: tuple[tuple[str, str], ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)

    def __getitem__(self, column: str) -> Any:
        """The value of a column.

        Raises:
            KeyError: there is no such column; the message names the columns.
        """
        if column not in self.row:
            raise KeyError(f"there is no column {column!r}; the columns are: {', '.join(map(str, self.row))}")
        return self.row[column]

    @property
    def target(self) -> str:
        """The first right answer."""
        return self.targets[0]


def inferred_kind(examples: Sequence[Example]) -> str:
    """Infer the kind of answer from the targets: ``choice``, ``boolean``, ``number``, ``text`` or ``exact``.

    Up to 5 % of the targets may deviate from multiple choice, since two BBH tasks have a target that is an option's
    text.
    """
    targets = [target.strip() for example in examples for target in example.targets]
    if any(len(example.targets) > 1 for example in examples):
        return "text"
    if sum(_LETTER.fullmatch(target) is not None for target in targets) >= 0.95 * len(targets):
        return "choice"
    if all(target.lower() in _VERDICTS for target in targets):
        return "boolean"
    if all(_NUMBER.fullmatch(target) for target in targets):
        return "number"
    return "exact"
