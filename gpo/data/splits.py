"""The splits of a task: no overlaps, splits of one file, samples, few-shot examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import TypeVar

from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import ConfigError

Splits = Mapping[Split, tuple[Example, ...]]
Name = TypeVar("Name", bound=str)

_FEW_TARGETS = 20
"""At most this many different targets are classes, whose shares are the same in every split of a file."""
_LINES_SHOWN = 3
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_WHOLE = re.compile(r"([+-]?\d+)\.0+")


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


def divided(
    examples: Sequence[Example], sizes: Mapping[Split, float], seed: int, *, where: str
) -> dict[Split, tuple[Example, ...]]:
    """Divide the examples of one file at random into the three splits; the same every time.

    Examples with the same input, ignoring case and white space, end in the same split. Where the examples have at most
    20 different targets, each split has the same share of every target, up to rounding.

    Args:
        sizes: of each split, as a share (< 1) or a number (≥ 1) of different inputs.
        seed: of the random order.
        where: the setting ``split``, for errors.

    Raises:
        ConfigError: a split would be empty, or the file has fewer different inputs than the sizes need.
    """
    alike: dict[str, list[Example]] = {}
    for example in examples:
        alike.setdefault(_key(example), []).append(example)
    rows = _mixed(list(alike.values()), seed)
    kept: dict[Split, tuple[Example, ...]] = {}
    needed = {split: size * len(rows) if size < 1 else size for split, size in sizes.items()}
    total = _rounded(sum(needed.values()))
    if total > len(rows):
        raise ConfigError(
            where, f"needs {total:,} different inputs; the file has {len(rows):,}", "ask for fewer, or add examples"
        )
    begin, before = 0, 0.0
    # Test comes first, so that it stays the same where only the size of another split changes.
    for split in (Split.TEST, Split.VAL, Split.TRAIN):
        before += needed[split]
        end = _rounded(before)
        if begin == end:
            raise ConfigError(
                f"{where}.{split}",
                f"{sizes[split]:g} of {len(rows):,} different inputs is no example",
                "ask for more, or add examples to the file",
            )
        kept[split] = tuple(example for row in rows[begin:end] for example in row)
        begin = end
    return {split: kept[split] for split in sizes}


def _rounded(number: float) -> int:
    return int(number + 0.5 + 1e-9)


def _mixed(rows: list[list[Example]], seed: int) -> list[list[Example]]:
    """The rows in a random order in which every part has about the same share of each target, if these are few."""
    random = Random(seed)
    random.shuffle(rows)
    classes: dict[tuple[str, ...], list[list[Example]]] = {}
    for row in rows:
        classes.setdefault(row[0].targets, []).append(row)
    if len(classes) > _FEW_TARGETS:
        return rows
    # The members of a class are spread evenly over the whole.
    spread = [
        ((index + random.random()) / len(members), row)
        for members in classes.values()
        for index, row in enumerate(members)
    ]
    return [row for _, row in sorted(spread, key=lambda placed: placed[0])]


def row_warnings(examples: Mapping[int, Example]) -> Iterator[str]:
    """A sentence on the rows of one file that repeat an input, and one on those that contradict each other.

    Args:
        examples: by line.
    """
    first: dict[str, tuple[int, set[frozenset[str]]]] = {}
    repeated: list[int] = []
    contradicting: list[tuple[int, int]] = []
    for line, example in examples.items():
        before, targets = first.setdefault(_key(example), (line, set()))
        given = frozenset(example.targets)
        if given in targets:
            repeated.append(line)
        elif targets:
            contradicting.append((before, line))
        targets.add(given)
    if repeated:
        lines = _listed([f"{line}" for line in repeated])
        rows = _counted(len(repeated), "row repeats", "rows repeat")
        yield f"{rows} an earlier row, in line {lines}; each of them counts again"
    if contradicting:
        lines = _listed([f"lines {before} and {line}" for before, line in contradicting])
        rows = _counted(len(contradicting), "row has", "rows have")
        yield (
            f"{rows} the input of an earlier row and another target, in {lines}; no answer is right for both, so "
            "correct one, or write the targets as a list"
        )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LINES_SHOWN:,} more" if len(items) > _LINES_SHOWN else ""
    return ", ".join(items[:_LINES_SHOWN]) + more


def with_equal_numbers_alike(splits: Mapping[Name, tuple[Example, ...]]) -> dict[Name, tuple[Example, ...]]:
    """The splits with targets such as ``1.0`` written as ``1``, and with ``True`` as ``1`` among numbers.

    Some programs read a column of whole numbers as floats, often in one file only. Targets change where all targets are
    numbers, or where the other spelling occurs, too.
    """
    targets = {target.strip() for examples in splits.values() for example in examples for target in example.targets}
    booleans = {target for target in targets if target.lower() in ("true", "false")}
    numbers = {target for target in targets if _NUMBER.fullmatch(target)}
    renamed: dict[str, str] = {}
    if numbers and {float(number) for number in numbers} <= {0.0, 1.0} and targets == numbers | booleans:
        renamed = {target: str(int(target.lower() == "true")) for target in booleans}
    for target in numbers:
        whole = _WHOLE.fullmatch(target)
        if whole and (whole[1] in targets or targets == numbers | booleans & renamed.keys()):
            renamed[target] = whole[1]
    if not renamed:
        return dict(splits)
    return {
        name: tuple(
            replace(one, targets=tuple(renamed.get(target.strip(), target) for target in one.targets))
            for one in examples
        )
        for name, examples in splits.items()
    }


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
