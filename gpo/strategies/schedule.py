"""Step size: how many words of the current prompt may change in each step (the paper's learning rate).

Steps count from 0. A schedule over ``num_steps`` steps starts at ``initial`` and reaches ``final`` in its last step; it
rises if ``final`` is larger. With ``warmup_steps``, the size first rises linearly to ``initial``, which it reaches in
step ``warmup_steps``, and decays over the remaining steps. If no step remains, it stays at ``initial``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol


class StepSizeSchedule(Protocol):
    """Maps a step's index to its step size."""

    def __call__(self, step: int) -> int | None:
        """The number of words that may change in step ``step`` ≥ 0, at least 1; ``None`` is no bound."""
        ...


def _scheduled(
    step: int, initial: int, final: int, num_steps: int, warmup_steps: int, remaining: Callable[[float], float]
) -> int:
    """``remaining`` maps progress in [0, 1] to the remaining share of ``initial - final``."""
    if step < warmup_steps:
        return max(1, round(initial * (step + 1) / (warmup_steps + 1)))
    last = num_steps - 1 - warmup_steps
    progress = min(1.0, (step - warmup_steps) / last) if last > 0 else 0.0
    return max(1, round(final + (initial - final) * remaining(progress)))


@dataclass(frozen=True, slots=True)
class NoBound:
    """Any number of words may change."""

    def __call__(self, step: int) -> None:
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSchedule:
    """The same step size in all steps after the warm-up."""

    size: int
    warmup_steps: int = 0

    def __call__(self, step: int) -> int:
        return _scheduled(step, self.size, self.size, step + 1, self.warmup_steps, lambda _: 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSchedule:
    """A step size that changes by the same number of words in every step."""

    initial: int
    final: int
    num_steps: int
    warmup_steps: int = 0

    def __call__(self, step: int) -> int:
        return _scheduled(step, self.initial, self.final, self.num_steps, self.warmup_steps, lambda done: 1 - done)


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineSchedule:
    """A step size that follows half a cosine wave: it changes slowly at both ends. GPO's own choice."""

    initial: int
    final: int
    num_steps: int
    warmup_steps: int = 0

    def __call__(self, step: int) -> int:
        return _scheduled(
            step, self.initial, self.final, self.num_steps, self.warmup_steps, lambda done: (1 + cos(pi * done)) / 2
        )
