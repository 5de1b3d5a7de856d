"""Section ``optimizer``: the GPO algorithm's strategies and their hyperparameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import NonNegativeInt, PositiveInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.section import Section, by_kind
from gpo.acceptance import Acceptance, BestOfStep, StrictImprovement
from gpo.compact_meta_prompt import CompactMetaPrompt
from gpo.meta_prompt import FullMetaPrompt, MetaPrompt
from gpo.models import Embedder
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

    kind: Literal["generation"] = "generation"
    """``generation``: the optimizer model writes a new prompt, guided by the direction."""


class MetaPromptConfig(Section):
    """How the optimizer model is asked."""

    kind: Literal["full", "compact"]
    """``full``: one long instruction, for capable models. ``compact``: a few example turns, for small ones."""
    exemplars: NonNegativeInt = 3
    """Train examples shown by ``full``, drawn anew in every step."""

    def build(self) -> MetaPrompt:
        """The meta-prompt."""
        meta_prompts: dict[str, MetaPrompt] = {"full": FullMetaPrompt(), "compact": CompactMetaPrompt()}
        return meta_prompts[self.kind]


class AcceptanceConfig(Section):
    """Who becomes the current prompt after a step."""

    kind: Literal["best_of_step", "strict_improvement"] = "best_of_step"
    """``best_of_step``: the best new candidate, even where it is worse. ``strict_improvement``: only a better one."""

    def build(self) -> Acceptance:
        """The acceptance rule."""
        rules: dict[str, Acceptance] = {"best_of_step": BestOfStep(), "strict_improvement": StrictImprovement()}
        return rules[self.kind]


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
    acceptance: AcceptanceConfig = AcceptanceConfig()

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
