"""Section ``optimizer.schedule``: how many words may change in each step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import NonNegativeInt, PositiveInt, Tag

from cluster.config.section import Section, by_kind
from gpo.strategies.schedule import CosineSchedule, FixedSchedule, LinearSchedule, NoBound, StepSizeSchedule


class NoScheduleConfig(Section):
    """Any number of words may change."""

    kind: Literal["none"]

    @property
    def warmup_steps(self) -> int:
        """There is nothing to warm up."""
        return 0

    def build(self, num_steps: int) -> StepSizeSchedule:
        """The schedule over ``num_steps`` steps."""
        del num_steps
        return NoBound()


class FixedScheduleConfig(Section):
    """The same step size in every step."""

    kind: Literal["fixed"]
    initial: PositiveInt = 50
    """Words that may change."""
    warmup_steps: NonNegativeInt = 0
    """Steps in which the size rises linearly first."""

    def build(self, num_steps: int) -> StepSizeSchedule:
        """The schedule over ``num_steps`` steps."""
        del num_steps
        return FixedSchedule(size=self.initial, warmup_steps=self.warmup_steps)


class _DecayConfig(Section):
    initial: PositiveInt = 50
    """Words that may change in the first step (after the warm-up)."""
    final: PositiveInt = 10
    """Words that may change in the last step."""
    warmup_steps: NonNegativeInt = 0
    """Steps in which the size rises linearly first."""


class LinearScheduleConfig(_DecayConfig):
    """A step size that falls evenly."""

    kind: Literal["linear"]

    def build(self, num_steps: int) -> StepSizeSchedule:
        """The schedule over ``num_steps`` steps."""
        return LinearSchedule(
            initial=self.initial, final=self.final, num_steps=num_steps, warmup_steps=self.warmup_steps
        )


class CosineScheduleConfig(_DecayConfig):
    """A step size that falls along half a cosine wave."""

    kind: Literal["cosine"] = "cosine"

    def build(self, num_steps: int) -> StepSizeSchedule:
        """The schedule over ``num_steps`` steps."""
        return CosineSchedule(
            initial=self.initial, final=self.final, num_steps=num_steps, warmup_steps=self.warmup_steps
        )


ScheduleConfig = Annotated[
    Annotated[CosineScheduleConfig, Tag("cosine")]
    | Annotated[LinearScheduleConfig, Tag("linear")]
    | Annotated[FixedScheduleConfig, Tag("fixed")]
    | Annotated[NoScheduleConfig, Tag("none")],
    by_kind("cosine", "linear", "fixed", "none"),
]
