"""The kind of answer that targets show, for tasks that no catalogue knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpo.data.example import Example
from gpo.data.splits import Splits, absent_from, sampled, without_overlap
from gpo.data.task import Split
from gpo.errors import ConfigError

_LETTER = re.compile(r"\([A-Z]\)")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_VERDICTS = {"yes", "no", "true", "false", "valid", "invalid"}


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


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """The examples of a task.

    Attributes:
        splits: an input stands in one of them only.
        few_shot: examples that may be shown to the task model, in the order in which they are taken; none of them is
            in ``val`` or ``test``. ``None`` where the data has none of its own, so that they come from ``train``.
    """

    splits: Splits
    few_shot: tuple[Example, ...] | None = None

    def with_shots(self, shots: int, *, where: str) -> tuple[Splits, tuple[Example, ...]]:
        """The splits, and so many examples to demonstrate with.

        Where they come from ``train``, they are drawn from it, always the same ones, and leave it.

        Args:
            shots: at least 0.
            where: the task's place, for errors.

        Raises:
            ConfigError: there are fewer, or ``train`` would be left empty.
        """
        if shots == 0:
            return self.splits, ()
        if self.few_shot is not None:
            if shots > len(self.few_shot):
                raise ConfigError(
                    f"{where}.shots",
                    f"{shots} is too many, the data has {len(self.few_shot)} few-shot examples",
                    "ask for fewer, or add some to the data",
                )
            return self.splits, self.few_shot[:shots]
        train = self.splits[Split.TRAIN]
        shown = sampled(train, shots)
        rest = absent_from(train, shown)
        if len(shown) < shots or not rest:
            raise ConfigError(
                f"{where}.shots",
                f"{shots} is too many, they are taken from the {len(train)} examples of train, and none would be left",
                "ask for fewer, or name a file for them: data.few_shot",
            )
        return {**self.splits, Split.TRAIN: rest}, shown


def published(splits: Splits, few_shot: Sequence[Example] | None, *, where: str) -> LoadedTask:
    """A published data set without the examples that it repeats.

    ``test`` is kept whole (see ``without_overlap``); few-shot examples that are in ``val`` or ``test`` are dropped.

    Args:
        where: the setting that named the data, for errors.

    Raises:
        ConfigError: nothing of ``val`` or of ``train`` is left.
    """
    kept = without_overlap(splits)
    if not kept[Split.VAL]:
        raise ConfigError(where, "every example of val is in test too", "replace one of the two")
    if not kept[Split.TRAIN]:
        raise ConfigError(
            where,
            "every example of train is in val or test too",
            'name parts that do not overlap, such as "train[:80%]" for train and "train[80%:]" for val, or other files',
        )
    shown = None if few_shot is None else absent_from(few_shot, (*kept[Split.VAL], *kept[Split.TEST]))
    return LoadedTask(kept, shown)
