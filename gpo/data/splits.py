"""Rules that the splits of a task obey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import TypeVar

from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import ConfigError

Splits = Mapping[Split, tuple[Example, ...]]
Name = TypeVar("Name", bound=str)


def _key(example: Example) -> str:
    return " ".join(example.input.split()).lower()


def require_disjoint(splits: Mapping[Name, tuple[Example, ...]], *, where: str) -> None:
    """Refuse an input that stands in two splits (case and white space aside): its score would not be held out.

    Args:
        splits: by name; few-shot examples may be among them.
        where: the setting that named the data, for errors.

    Raises:
        ConfigError: names the two splits and the input.
    """
    for first, second in combinations(splits, 2):
        seen = {_key(example): example for example in splits[first]}
        for example in splits[second]:
            if _key(example) in seen:
                shown = example.input if len(example.input) <= 60 else f"{example.input[:60]}…"
                raise ConfigError(
                    where, f"the example {shown!r} is in both {first} and {second}", "keep it in one split only"
                )


def without_overlap(splits: Splits) -> dict[Split, tuple[Example, ...]]:
    """The splits without repeats: an input stays in ``test`` first, then ``val``, then ``train``.

    ``val`` and ``train`` lose repeats of their own too. Some published benchmarks repeat questions; ``test`` is kept
    whole, its own repeats included, so that its scores stay comparable.
    """
    seen: set[str] = set()
    kept: dict[Split, tuple[Example, ...]] = {}
    for split in (Split.TEST, Split.VAL, Split.TRAIN):
        fresh: list[Example] = []
        for example in splits[split]:
            if split is Split.TEST or _key(example) not in seen:
                fresh.append(example)
            seen.add(_key(example))
        kept[split] = tuple(fresh)
    return kept


def absent_from(examples: Iterable[Example], others: Iterable[Example]) -> tuple[Example, ...]:
    """The examples, in order, whose input is not among the others' (case and white space aside)."""
    taken = {_key(other) for other in others}
    return tuple(example for example in examples if _key(example) not in taken)


def distinct(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The examples, in order, without those whose input stood before (case and white space aside)."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(_key(example), example)
    return tuple(first.values())


def shuffled(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The examples in an arbitrary order, always the same one, for a data set that is published without splits."""
    mixed = list(examples)
    Random(0).shuffle(mixed)
    return tuple(mixed)


def sampled(examples: tuple[Example, ...], size: int | None) -> tuple[Example, ...]:
    """At most ``size`` of the examples, in their order; always the same ones, so that all searches share them."""
    if size is None or size >= len(examples):
        return examples
    chosen = sorted(Random(0).sample(range(len(examples)), size))
    return tuple(examples[index] for index in chosen)


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
