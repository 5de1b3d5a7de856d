"""Section ``optimizer``: the strategies of GPO and their hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.section import OptionInfo, Section, by_kind
from gpo.data.example import Example
from gpo.evaluation.evaluator import Answerer
from gpo.models.protocol import ChatModel, Embedder, Sampling
from gpo.strategies.acceptance import Acceptance, BestOfStep, StrictImprovement, WithinError
from gpo.strategies.meta_prompt import CompactMetaPrompt, FullMetaPrompt, MetaPrompt
from gpo.strategies.refinement import Editing, Generation, Paraphrase, Refinement
from gpo.strategies.reflection import FailureReflector, NoReflection, Reflector
from gpo.strategies.retrieval import ImportanceRetriever, RecencyRetriever, RelevanceRetriever, Retriever
from gpo.strategies.schedule import CosineSchedule, FixedSchedule, LinearSchedule, NoBound, StepSizeSchedule
from gpo.strategies.summary import NoSummary, RunningSummary, Summarizer


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


class RetrievalConfig(Section):
    """Show past prompts that were retrieved from the trajectory."""

    kind: Literal["retrieval"] = "retrieval"
    by: Literal["recency", "importance", "relevance"] = "relevance"
    """The last ones, the best ones, or those nearest in meaning to the current prompt."""
    k: NonNegativeInt = 3
    """How many."""

    def build_summarizer(self, model: ChatModel, sampling: Sampling, *, show_scores: bool) -> Summarizer:
        """None: the prompts speak for themselves."""
        del model, sampling, show_scores
        return NoSummary()

    def build_retriever(self, embedder: Embedder) -> Retriever:
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

    def build_summarizer(self, model: ChatModel, sampling: Sampling, *, show_scores: bool) -> Summarizer:
        """None."""
        del model, sampling, show_scores
        return NoSummary()

    def build_retriever(self, embedder: Embedder) -> Retriever:
        """Any retriever: it is asked for 0 prompts."""
        del embedder
        return RecencyRetriever()


class SummaryConfig(Section):
    """Show a summary of the search so far, which the optimizer model brings up to date in every step."""

    kind: Literal["summary"]

    @property
    def k(self) -> int:
        """No past prompt is shown."""
        return 0

    def build_summarizer(self, model: ChatModel, sampling: Sampling, *, show_scores: bool) -> Summarizer:
        """The summarizer, on the optimizer model."""
        return RunningSummary(model=model, sampling=sampling, show_scores=show_scores)

    def build_retriever(self, embedder: Embedder) -> Retriever:
        """Any retriever: it is asked for 0 prompts."""
        del embedder
        return RecencyRetriever()


class DirectionConfig(Section):
    """Update direction: what the optimizer model learns from."""

    form: Literal["prompt", "score", "score_reflection"] = "score"
    """``prompt``: the texts of prompts alone. ``score``: with their scores. ``score_reflection``: also with what the
    optimizer model says of the current prompt's failures on a batch of ``train``."""
    failures: PositiveInt = 3
    """With ``score_reflection``: failures that a reflection is made from, at most."""
    trajectory: Annotated[
        Annotated[RetrievalConfig, Tag("retrieval")]
        | Annotated[SummaryConfig, Tag("summary")]
        | Annotated[NoTrajectoryConfig, Tag("none")],
        by_kind("retrieval", "summary", "none"),
    ] = RetrievalConfig()
    """How the trajectory so far is used."""

    def build_reflector(
        self, model: ChatModel, sampling: Sampling, answerer: Answerer, examples: Sequence[Example]
    ) -> Reflector:
        """The reflector, on the optimizer model and the train split's examples."""
        if self.form != "score_reflection":
            return NoReflection()
        return FailureReflector(
            model=model, sampling=sampling, answerer=answerer, examples=examples, num_failures=self.failures
        )


DEFAULT_STEPS = 12
SHARED, OF_METHOD = OptionInfo(in_comparison="shared"), OptionInfo(in_comparison="method")


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

    steps: Annotated[NonNegativeInt | None, SHARED] = None
    """Updates of each trajectory. Left out: as many as ``epochs`` take, or 12 where that is left out, too."""
    epochs: Annotated[PositiveInt | None, SHARED] = None
    """Passes over ``train``, one update for each batch; in place of ``steps``."""
    batch_size: Annotated[PositiveInt, SHARED] = 8
    """Train examples of a step: reflections are made on them, and the examples in the meta-prompt come from them."""
    candidates: Annotated[PositiveInt, SHARED] = 8
    """New prompts asked for in each step."""
    direction: Annotated[DirectionConfig, OF_METHOD] = DirectionConfig()
    schedule: Annotated[ScheduleConfig, OF_METHOD] = CosineScheduleConfig()
    refinement: Annotated[RefinementConfig, OF_METHOD] = RefinementConfig()
    meta_prompt: MetaPromptConfig | None = None
    """Left out: ``compact`` where the optimizer model is the embedded default, and else ``full``."""
    acceptance: Annotated[
        Annotated[BestOfStepConfig, Tag("best_of_step")]
        | Annotated[StrictImprovementConfig, Tag("strict_improvement")]
        | Annotated[WithinErrorConfig, Tag("within_error")],
        by_kind("best_of_step", "strict_improvement", "within_error"),
        OF_METHOD,
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
