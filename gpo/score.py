"""How good a prompt is on a split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan, sqrt

from gpo.process import PicklesFieldsOnly


def finite(value: float) -> float | None:
    """The value, or ``None`` for NaN, which JSON does not know."""
    return value if isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Partial:
    """Says that some examples were never asked, because the prompt had fallen too far behind others.

    Attributes:
        num_left_out: how many, ≥ 1.
        mean: what the mean over all examples would be, as far as the others' scores tell, in [0, 1]. The plain mean
            would also say how hard the examples were that happened to be asked.
    """

    num_left_out: int
    mean: float


@dataclass(frozen=True)
class Score(PicklesFieldsOnly):
    """The verdicts on one prompt, one value in [0, 1] per example.

    ``values_E`` is in the order of the examples. ``None`` is *unscored*: the call failed, and nothing is known; it
    counts neither for nor against the prompt. Where the score is ``partial``, examples that were left out are ``None``
    too; such a prompt is never chosen.
    """

    values_E: tuple[float | None, ...]
    partial: Partial | None = None

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
        """How many of them could not be; those that were left out do not count."""
        return len(self.values_E) - len(self.scored) - (self.partial.num_left_out if self.partial else 0)

    @cached_property
    def mean(self) -> float:
        """Mean over the scored examples, in [0, 1]; NaN when there is none. An estimate where the score is partial."""
        return self.partial.mean if self.partial else self.mean_of_scored

    @cached_property
    def mean_of_scored(self) -> float:
        """Mean over the scored examples, be they all or a part; NaN when there is none."""
        return sum(self.scored) / len(self.scored) if self.scored else nan

    @cached_property
    def stderr(self) -> float:
        """Standard error of their mean, from the sample standard deviation; NaN below two scored examples."""
        n = len(self.scored)
        if n < 2:
            return nan
        variance = sum((value - self.mean_of_scored) ** 2 for value in self.scored) / (n - 1)
        return sqrt(variance / n)
