"""How good a prompt is on a split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan, sqrt


def finite(value: float) -> float | None:
    """The value, or ``None`` for NaN, which JSON does not know."""
    return value if isfinite(value) else None


@dataclass(frozen=True)
class Score:
    """The verdicts on one prompt, one value in [0, 1] per example.

    ``values_E`` is in the order of the examples. ``None`` is *unscored*: the call failed, and nothing is known; it
    counts neither for nor against the prompt.
    """

    values_E: tuple[float | None, ...]

    @cached_property
    def scored(self) -> tuple[float, ...]:
        """The values that are known."""
        return tuple(value for value in self.values_E if value is not None)

    @property
    def num_examples(self) -> int:
        """How many examples were to be scored."""
        return len(self.values_E)

    @property
    def num_unscored(self) -> int:
        """How many of them could not be."""
        return len(self.values_E) - len(self.scored)

    @cached_property
    def mean(self) -> float:
        """Mean over the scored examples, in [0, 1]; NaN when there is none."""
        return sum(self.scored) / len(self.scored) if self.scored else nan

    @cached_property
    def stderr(self) -> float:
        """Standard error of the mean, from the sample standard deviation; NaN below two scored examples."""
        n = len(self.scored)
        if n < 2:
            return nan
        variance = sum((value - self.mean) ** 2 for value in self.scored) / (n - 1)
        return sqrt(variance / n)
