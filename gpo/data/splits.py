"""The splits of a task: no overlaps, samples, few-shot examples."""

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
    """Require that no input is in two splits, ignoring case and white space; its score would not be held out.

    Args:
        splits: by name; may include few-shot examples.
        where: the setting that names the data, for errors.

    Raises:
        ConfigError: an input is in two splits; the message names them.
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
    """Remove repeated inputs: one in several splits is kept in ``test``, else in ``val``.

    Some published benchmarks repeat questions. ``val`` and ``train`` also lose repeats within the split; ``test`` is
    not changed, so that its scores stay comparable.
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
    """The examples, in order, whose input is not in the others, ignoring case and white space."""
    taken = {_key(other) for other in others}
    return tuple(example for example in examples if _key(example) not in taken)


def distinct(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The examples, in order, without repeated inputs, ignoring case and white space."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(_key(example), example)
    return tuple(first.values())


def shuffled(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The examples in a fixed random order, for a data set that is published without splits."""
    mixed = list(examples)
    Random(0).shuffle(mixed)
    return tuple(mixed)


def sampled(examples: tuple[Example, ...], size: int | None) -> tuple[Example, ...]:
    """A fixed random sample of at most ``size`` examples in their order, so that all searches share it."""
    if size is None or size >= len(examples):
        return examples
    chosen = sorted(Random(0).sample(range(len(examples)), size))
    return tuple(examples[index] for index in chosen)


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """The examples of a task.

    Attributes:
        splits: every input is in one split only.
        few_shot: examples to show to the task model, in order of use; none is in ``val`` or ``test``. ``None`` if the
            data has none, so that they are taken from ``train``.
    """

    splits: Splits
    few_shot: tuple[Example, ...] | None = None

    def with_shots(self, shots: int, *, where: str) -> tuple[Splits, tuple[Example, ...]]:
        """The splits and ``shots`` demonstrations.

        Demonstrations from ``train`` are a fixed random sample, which is removed from ``train``.

        Args:
            shots: ≥ 0.
            where: location of the task, for errors.

        Raises:
            ConfigError: there are fewer examples, or ``train`` would be empty.
        """
        if shots == 0:
            return self.splits, ()
        if self.few_shot is not None:
            if shots > len(self.few_shot):
                raise ConfigError(
                    f"{where}.shots",
                    f"{shots} is too many: the data has {len(self.few_shot)} few-shot examples",
                    "ask for fewer, or add some to the data",
                )
            return self.splits, self.few_shot[:shots]
        train = self.splits[Split.TRAIN]
        shown = sampled(train, shots)
        rest = absent_from(train, shown)
        if len(shown) < shots or not rest:
            raise ConfigError(
                f"{where}.shots",
                f"{shots} is too many: they are taken from train, which has {len(train)} examples and must keep one",
                "ask for fewer, or name a file for them: data.few_shot",
            )
        return {**self.splits, Split.TRAIN: rest}, shown


def published(splits: Splits, few_shot: Sequence[Example] | None, *, where: str) -> LoadedTask:
    """A published data set without repeated examples.

    ``test`` is not changed (see ``without_overlap``). Few-shot examples that are in ``val`` or ``test`` are removed.

    Args:
        where: the setting that names the data, for errors.

    Raises:
        ConfigError: ``val`` or ``train`` would be empty.
    """
    kept = without_overlap(splits)
    if not kept[Split.VAL]:
        raise ConfigError(where, "every example of val is also in test", "replace one of the two")
    if not kept[Split.TRAIN]:
        raise ConfigError(
            where,
            "every example of train is also in val or test",
            'name parts that do not overlap, such as "train[:80%]" for train and "train[80%:]" for val, or other files',
        )
    shown = None if few_shot is None else absent_from(few_shot, (*kept[Split.VAL], *kept[Split.TEST]))
    return LoadedTask(kept, shown)
