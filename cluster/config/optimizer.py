"""Section ``optimizer``: the GPO algorithm's strategies and their hyperparameters."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.direction import DirectionConfig
from cluster.config.schedule import CosineScheduleConfig, ScheduleConfig
from cluster.config.section import Section, by_kind
from gpo.strategies.acceptance import Acceptance, BestOfStep, StrictImprovement, WithinError
from gpo.strategies.meta_prompt import CompactMetaPrompt, FullMetaPrompt, MetaPrompt
from gpo.strategies.refinement import Editing, Generation, Paraphrase, Refinement

DEFAULT_STEPS = 12


class RefinementConfig(Section):
    """Update method: how a new prompt is made."""

    kind: Literal["generation", "editing", "paraphrase"] = "generation"
    """``generation``: the optimizer model writes a new prompt, guided by the direction. ``editing``: it changes words
    of the current prompt and leaves the rest. ``paraphrase``: it says the same in other words."""
    enforce: bool = False
    """Sample a prompt anew where it changes more words than the step size allows; else the step size is advice."""
    max_samples: Annotated[int, Field(ge=2)] = 4
    """With ``enforce``: samples that are bought for one candidate at the most."""

    def build(self) -> Refinement:
        """What the optimizer model is told to do."""
        refinements: dict[str, Refinement] = {
            "generation": Generation(),
            "editing": Editing(),
            "paraphrase": Paraphrase(),
        }
        return refinements[self.kind]


class MetaPromptConfig(Section):
    """How the optimizer model is asked."""

    kind: Literal["full", "compact"]
    """``full``: one long instruction, for capable models. ``compact``: a few example turns, for small ones."""
    exemplars: NonNegativeInt = 3
    """Train examples shown by ``full``, drawn from the step's batch."""

    def build(self, refinement: RefinementConfig, form: str) -> MetaPrompt:
        """The meta-prompt for this refinement and form of direction."""
        if self.kind == "compact":
            return CompactMetaPrompt(refinement.kind, by_score=form != "prompt")
        return FullMetaPrompt(refinement.build(), show_scores=form != "prompt")


class BestOfStepConfig(Section):
    """On to the best new candidate, even where it is worse; the reference runs' policy."""

    kind: Literal["best_of_step"] = "best_of_step"

    def build(self) -> Acceptance:
        """The acceptance rule."""
        return BestOfStep()


class StrictImprovementConfig(Section):
    """On to the best new candidate only where it is better than the current prompt."""

    kind: Literal["strict_improvement"]

    def build(self) -> Acceptance:
        """The acceptance rule."""
        return StrictImprovement()


class WithinErrorConfig(Section):
    """On to the best new candidate, but back to the best so far where it is measurably worse than that."""

    kind: Literal["within_error"]
    standard_errors: NonNegativeFloat = 1.0
    """How many standard errors of the paired difference a candidate may lie below the best so far."""

    def build(self) -> Acceptance:
        """The acceptance rule."""
        return WithinError(self.standard_errors)


class OptimizerConfig(Section):
    """The search."""

    steps: NonNegativeInt | None = None
    """Updates of each trajectory. Left out: as many as ``epochs`` take, or 12 where that is left out, too."""
    epochs: PositiveInt | None = None
    """Passes over ``train``, one update for each batch; in place of ``steps``."""
    batch_size: PositiveInt = 8
    """Train examples of a step: reflections are made on them, and the examples in the meta-prompt come from them."""
    candidates: PositiveInt = 8
    """New prompts asked for in each step."""
    direction: DirectionConfig = DirectionConfig()
    schedule: ScheduleConfig = CosineScheduleConfig()
    refinement: RefinementConfig = RefinementConfig()
    meta_prompt: MetaPromptConfig | None = None
    """Left out: ``compact`` where the optimizer model is the embedded default, and else ``full``."""
    acceptance: Annotated[
        Annotated[BestOfStepConfig, Tag("best_of_step")]
        | Annotated[StrictImprovementConfig, Tag("strict_improvement")]
        | Annotated[WithinErrorConfig, Tag("within_error")],
        by_kind("best_of_step", "strict_improvement", "within_error"),
    ] = BestOfStepConfig()
    """Who becomes the current prompt after a step."""

    @model_validator(mode="before")
    @classmethod
    def _default_steps(cls, optimizer: Any) -> Any:
        """Write the default out, since it depends on another option."""
        if isinstance(optimizer, dict) and optimizer.get("steps") is None and optimizer.get("epochs") is None:
            return {**optimizer, "steps": DEFAULT_STEPS}
        return optimizer

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise PydanticCustomError("epochs", "is set beside steps; leave one of the two out", {"at": "epochs"})
        return self

    @model_validator(mode="after")
    def _there_is_something_to_enforce(self) -> Self:
        if self.refinement.enforce and self.schedule.kind == "none":
            raise PydanticCustomError(
                "enforce",
                "there is no step size to enforce with schedule.kind none; choose a schedule, or leave it out",
                {"at": "refinement.enforce"},
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        # How many steps ``epochs`` are is known once the data is loaded.
        if self.steps is not None and not self.warm_up_fits(self.steps):
            raise PydanticCustomError(
                "warmup",
                "{warmup} is too many, there are only {steps} steps; warm up in fewer",
                {
                    "at": "schedule.warmup_steps",
                    "warmup": self.schedule.warmup_steps,
                    "steps": self.steps,
                },
            )
        return self

    def num_steps(self, num_train: int) -> int:
        """Updates of a trajectory whose task has so many train examples."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * ceil(num_train / self.batch_size)

    def warm_up_fits(self, num_steps: int) -> bool:
        """Whether the warm-up leaves a step to decay in."""
        return self.schedule.warmup_steps == 0 or self.schedule.warmup_steps < num_steps
