"""Section ``optimizer``: the GPO algorithm's strategies and their hyperparameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.section import Section, by_kind
from gpo.acceptance import Acceptance, BestOfStep, StrictImprovement, WithinError
from gpo.compact_meta_prompt import CompactMetaPrompt
from gpo.meta_prompt import FullMetaPrompt, MetaPrompt
from gpo.models import Embedder
from gpo.refinement import Editing, Generation, Refinement
from gpo.retrieval import ImportanceRetriever, RecencyRetriever, RelevanceRetriever, Retriever
from gpo.schedule import CosineSchedule, FixedSchedule, LinearSchedule, NoBound, StepSizeSchedule


class RetrievalConfig(Section):
    """Show past prompts that were retrieved from the trajectory."""

    kind: Literal["retrieval"] = "retrieval"
    by: Literal["recency", "importance", "relevance"] = "relevance"
    """The last ones, the best ones, or those nearest in meaning to the current prompt."""
    k: NonNegativeInt = 3
    """How many."""

    def build(self, embedder: Embedder) -> Retriever:
        """The retriever."""
        retrievers: dict[str, Retriever] = {
            "recency": RecencyRetriever(),
            "importance": ImportanceRetriever(),
            "relevance": RelevanceRetriever(embedder),
        }
        return retrievers[self.by]


class NoTrajectoryConfig(Section):
    """Show the current prompt alone."""

    kind: Literal["none"]

    @property
    def k(self) -> int:
        """No past prompt is shown."""
        return 0

    def build(self, embedder: Embedder) -> Retriever:
        """Any retriever: it is asked for 0 prompts."""
        del embedder
        return RecencyRetriever()


class DirectionConfig(Section):
    """Update direction: what the optimizer model learns from."""

    form: Literal["score"] = "score"
    """``score``: prompts with their scores."""
    trajectory: Annotated[
        Annotated[RetrievalConfig, Tag("retrieval")] | Annotated[NoTrajectoryConfig, Tag("none")],
        by_kind("retrieval", "none"),
    ] = RetrievalConfig()
    """How the trajectory so far is used."""


class NoScheduleConfig(Section):
    """Any number of words may change."""

    kind: Literal["none"]

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


class RefinementConfig(Section):
    """Update method: how a new prompt is made."""

    kind: Literal["generation", "editing"] = "generation"
    """``generation``: the optimizer model writes a new prompt, guided by the direction. ``editing``: it changes words
    of the current prompt and leaves the rest."""
    enforce: bool = False
    """Sample a prompt anew where it changes more words than the step size allows; else the step size is advice."""
    max_samples: Annotated[int, Field(ge=2)] = 4
    """With ``enforce``: samples that are bought for one candidate at the most."""

    def build(self) -> Refinement:
        """What the optimizer model is told to do."""
        refinements: dict[str, Refinement] = {"generation": Generation(), "editing": Editing()}
        return refinements[self.kind]


class MetaPromptConfig(Section):
    """How the optimizer model is asked."""

    kind: Literal["full", "compact"]
    """``full``: one long instruction, for capable models. ``compact``: a few example turns, for small ones."""
    exemplars: NonNegativeInt = 3
    """Train examples shown by ``full``, drawn anew in every step."""

    def build(self, refinement: Refinement) -> MetaPrompt:
        """The meta-prompt."""
        return CompactMetaPrompt() if self.kind == "compact" else FullMetaPrompt(refinement)


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

    steps: NonNegativeInt = 12
    """Updates of each trajectory."""
    candidates: PositiveInt = 8
    """New prompts asked for in each step."""
    direction: DirectionConfig = DirectionConfig()
    schedule: Annotated[
        Annotated[CosineScheduleConfig, Tag("cosine")]
        | Annotated[LinearScheduleConfig, Tag("linear")]
        | Annotated[FixedScheduleConfig, Tag("fixed")]
        | Annotated[NoScheduleConfig, Tag("none")],
        by_kind("cosine", "linear", "fixed", "none"),
    ] = CosineScheduleConfig()
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
        warmup = getattr(self.schedule, "warmup_steps", 0)
        if warmup and warmup >= self.steps:
            raise PydanticCustomError(
                "warmup",
                "{warmup} is too many, there are only {steps} steps; warm up in fewer",
                {"at": "schedule.warmup_steps", "warmup": warmup, "steps": self.steps},
            )
        return self
