"""What became of each example between the initial prompt and the best one."""

from __future__ import annotations

from dataclasses import dataclass

from gpo.checkpoint import Checkpoint
from gpo.score import Score


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The examples of a split, by number, counted from 1 in the order of the split.

    Attributes:
        fixed: the best prompt's verdict is higher than the initial one's.
        broken: it is lower.
        unchanged: how many have the same verdict, and of these ``right`` the full one.
        unknown: how many lack a verdict on either prompt.
    """

    split: str
    fixed: tuple[int, ...]
    broken: tuple[int, ...]
    unchanged: int
    right: int
    unknown: int


def outcomes(checkpoint: Checkpoint) -> list[Outcomes]:
    """One entry for each split on which both prompts were scored; ``val`` always is."""
    initial, best = checkpoint.trajectory.initial, checkpoint.trajectory.best
    compared = [_compared("val", initial.score, best.score)]
    tests = [checkpoint.test.get(candidate.prompt.id) for candidate in (initial, best)]
    if tests[0] is not None and tests[1] is not None:
        compared.append(_compared("test", tests[0].score, tests[1].score))
    return compared


def _compared(split: str, initial: Score, best: Score) -> Outcomes:
    fixed, broken, unchanged, right, unknown = [], [], 0, 0, 0
    # Of one split and task, so that they are of one length, unless the files were tampered with.
    for number, (before, after) in enumerate(zip(initial.values_E, best.values_E, strict=False), start=1):
        if before is None or after is None:
            unknown += 1
        elif after > before:
            fixed.append(number)
        elif after < before:
            broken.append(number)
        else:
            unchanged += 1
            right += after == 1
    return Outcomes(split, tuple(fixed), tuple(broken), unchanged, right, unknown)
