"""Rules that the splits of a task obey."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from random import Random

from gpo.errors import ConfigError
from gpo.examples import Example
from gpo.tasks import Split

Splits = Mapping[Split, tuple[Example, ...]]


def _key(example: Example) -> str:
    return " ".join(example.input.split()).lower()


def require_disjoint(splits: Splits, *, where: str) -> None:
    """Refuse an input that stands in two splits (case and white space aside): its score would not be held out.

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


def sampled(examples: tuple[Example, ...], size: int | None) -> tuple[Example, ...]:
    """At most ``size`` of the examples, in their order; always the same ones, so that all searches share them."""
    if size is None or size >= len(examples):
        return examples
    chosen = sorted(Random(0).sample(range(len(examples)), size))
    return tuple(examples[index] for index in chosen)
