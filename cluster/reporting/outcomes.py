"""Which examples the best prompt fixed or broke, compared with the initial prompt."""

from __future__ import annotations

from dataclasses import dataclass

from gpo.checkpoint import Checkpoint
from gpo.score import Score


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The examples of a split by number, counted from 1 in the order of the split.

    Attributes:
        fixed: examples with a higher score for the best prompt.
        broken: examples with a lower score for the best prompt.
        unchanged: number of examples with the same score; ``right`` is the number of fully right ones among them.
        unscored: number of examples without a score for one of the prompts.
    """

    split: str
    fixed: tuple[int, ...]
    broken: tuple[int, ...]
    unchanged: int
    right: int
    unscored: int


def outcomes(checkpoint: Checkpoint) -> list[Outcomes]:
    """One entry for each split on which both prompts were scored, which always includes ``val``."""
    initial, best = checkpoint.trajectory.initial, checkpoint.trajectory.best
    compared = [_compared("val", initial.score, best.score)]
    tests = [checkpoint.test.get(candidate.prompt.id) for candidate in (initial, best)]
    if tests[0] is not None and tests[1] is not None:
        compared.append(_compared("test", tests[0].score, tests[1].score))
    return compared


def _compared(split: str, initial: Score, best: Score) -> Outcomes:
    fixed, broken, unchanged, right, unscored = [], [], 0, 0, 0
    # Both have the length of the split, unless the files were modified.
    for number, (before, after) in enumerate(zip(initial.values_E, best.values_E, strict=False), start=1):
        if before is None or after is None:
            unscored += 1
        elif after > before:
            fixed.append(number)
        elif after < before:
            broken.append(number)
        else:
            unchanged += 1
            right += after == 1
    return Outcomes(split, tuple(fixed), tuple(broken), unchanged, right, unscored)
