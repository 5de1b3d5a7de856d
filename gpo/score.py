"""The score of a prompt on a split."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan, sqrt

from gpo.runtime.process import PicklesFieldsOnly


def finite(value: float) -> float | None:
    """The value, or ``None`` if it is NaN or infinite, which JSON cannot represent."""
    return value if isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Partial:
    """Marks a score without some examples, with an estimate of the mean over all of them.

    The plain mean would depend on how hard the evaluated examples are.

    Attributes:
        num_left_out: examples that were not evaluated, ≥ 1.
        mean: the estimate, from the scores of other candidates too, in [0, 1].
        stderr: standard error of the estimate, ≥ 0. ``None``: the prompt was dropped, and the estimate is too rough to
            choose the prompt by it.
    """

    num_left_out: int
    mean: float
    stderr: float | None = None


@dataclass(frozen=True, slots=True)
class Flaws:
    """How many answers say nothing. They score 0, but the reason may be a setting rather than the prompt.

    Attributes:
        empty: answers without text.
        cut: answers that score 0 or are empty, and end at ``max_tokens``.
        unreadable: answers in which the scorer finds nothing of its kind: no label, no option, no number.
    """

    empty: int = 0
    cut: int = 0
    unreadable: int = 0

    def __add__(self, other: Flaws) -> Flaws:
        return Flaws(self.empty + other.empty, self.cut + other.cut, self.unreadable + other.unreadable)


NO_FLAWS = Flaws()


@dataclass(frozen=True)
class Score(PicklesFieldsOnly):
    """The values of one prompt, one in [0, 1] per example.

    ``values_E`` is in the order of the examples. ``None`` means unscored: the call failed, and the example counts
    neither for nor against the prompt. If the score is ``partial``, examples that were left out are ``None`` as well.
    """

    values_E: tuple[float | None, ...]
    partial: Partial | None = None
    flaws: Flaws = field(default_factory=Flaws)

    @cached_property
    def scored(self) -> tuple[float, ...]:
        """The values of the scored examples."""
        return tuple(value for value in self.values_E if value is not None)

    @property
    def num_examples(self) -> int:
        """The number of examples, scored or not."""
        return len(self.values_E)

    @property
    def num_unscored(self) -> int:
        """The number of examples whose call failed; examples that were left out do not count."""
        return len(self.values_E) - len(self.scored) - (self.partial.num_left_out if self.partial else 0)

    @cached_property
    def mean(self) -> float:
        """Mean over the scored examples, in [0, 1]; NaN if there are none. An estimate if the score is partial."""
        return self.partial.mean if self.partial else self.mean_of_scored

    @property
    def lower(self) -> float:
        """The mean, less one standard error if it is an estimate. A search chooses prompts by it."""
        return self.mean - self._stderr_of_estimate

    @property
    def upper(self) -> float:
        """The mean, plus one standard error if it is an estimate."""
        return self.mean + self._stderr_of_estimate

    @property
    def _stderr_of_estimate(self) -> float:
        return (self.partial.stderr or 0.0) if self.partial else 0.0

    @cached_property
    def mean_of_scored(self) -> float:
        """Mean over the scored examples, even if the score is partial; NaN if there are none."""
        return sum(self.scored) / len(self.scored) if self.scored else nan

    @cached_property
    def stderr(self) -> float:
        """Standard error of ``mean_of_scored``, from the sample standard deviation; NaN below two scored examples."""
        n = len(self.scored)
        if n < 2:
            return nan
        variance = sum((value - self.mean_of_scored) ** 2 for value in self.scored) / (n - 1)
        return sqrt(variance / n)
