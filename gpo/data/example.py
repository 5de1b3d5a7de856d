"""One labelled example of a task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LETTER = re.compile(r"\([A-Z]\)")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_VERDICTS = {"yes", "no", "true", "false", "valid", "invalid"}


@dataclass(frozen=True, slots=True)
class Example:
    """An input and the answers that count as right.

    ``targets`` has at least one entry; several are alternatives (the references of a text generation task).
    """

    input: str
    targets: tuple[str, ...]

    @property
    def target(self) -> str:
        """The first of the right answers."""
        return self.targets[0]


def inferred_kind(examples: Sequence[Example]) -> str:
    """The kind of answer that the targets show: ``choice``, ``boolean``, ``number``, ``text`` or ``exact``.

    A few faulty targets do not hide multiple choice: two tasks of BBH have one each that is an option's text.
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
