"""Section ``optimizer``: the strategies of GPO and their hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    Tag,
    model_validator,
)

from cluster.config.own_strategies import (
    OwnAcceptanceConfig,
    OwnRefinementConfig,
    OwnRetrievalConfig,
    OwnScheduleConfig,
)
from cluster.config.section import LOCATION, OWN, ConfigPath, OptionInfo, Section, by_kind, unfit
from gpo.data.example import Example
from gpo.data.files import read_text
from gpo.data.template import Template
from gpo.errors import ConfigError
from gpo.evaluation.evaluator import Answerer
from gpo.models.protocol import ChatModel, Embedder, Sampling
from gpo.strategies.acceptance import Acceptance, BestOfStep, BestSoFar, StrictImprovement, WithinError
from gpo.strategies.demonstrations import DemonstrationMetaPrompt
from gpo.strategies.first_prompts import GoalMetaPrompt
from gpo.strategies.meta_prompt import CompactMetaPrompt, FullMetaPrompt, MetaPrompt
from gpo.strategies.own_meta_prompt import ExtendedMetaPrompt, TemplateMetaPrompt
from gpo.strategies.refinement import Editing, Generation, Paraphrase, Refinement
from gpo.strategies.reflection import FailureReflector, Feedback, NoReflection, Reflector
from gpo.strategies.retrieval import (
    ImportanceRetriever,
    MixedRetriever,
    RecencyRetriever,
    RelevanceRetriever,
    Retriever,
)
from gpo.strategies.schedule import CosineSchedule, FixedSchedule, LinearSchedule, NoBound, StepSizeSchedule
from gpo.strategies.summary import NoSummary, RunningSummary, Summarizer


class NoScheduleConfig(Section):
    """No step size: any number of words may change."""

    kind: Literal["none"]

    @property
    def warmup_steps(self) -> int:
        """Without a step size there is no warm-up."""
        return 0

    def build(self, num_steps: int) -> StepSizeSchedule:
        """The schedule over ``num_steps`` steps."""
        return NoBound()


class FixedScheduleConfig(Section):
    """The same step size in every step."""

    kind: Literal["fixed"]
    initial: PositiveInt = 50
    """Most words that may change in a step."""
    warmup_steps: NonNegativeInt = 0
    """Steps at the beginning in which the step size rises linearly."""

    def build(self, num_steps: int) -> StepSizeSchedule:
        """The schedule over ``num_steps`` steps."""
        return FixedSchedule(size=self.initial, warmup_steps=self.warmup_steps)


class _DecayConfig(Section):
    initial: PositiveInt = 50
    """Most words that may change in the first step after the warm-up."""
    final: PositiveInt = 10
    """Most words that may change in the last step."""
    warmup_steps: NonNegativeInt = 0
    """Steps at the beginning in which the step size rises linearly."""


class LinearScheduleConfig(_DecayConfig):
    """A step size that falls linearly."""

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
    | Annotated[NoScheduleConfig, Tag("none")]
    | Annotated[OwnScheduleConfig, Tag(OWN)],
    by_kind("cosine", "linear", "fixed", "none", OWN),
]


class RetrievalConfig(Section):
    """Show the optimizer model past prompts that are retrieved from the trajectory."""

    kind: Literal["retrieval"] = "retrieval"
    by: Literal["recency", "importance", "relevance", "mixed"] = "mixed"
    """Which prompts to show: the last ones (``recency``), the best ones (``importance``), those closest in meaning to
    the current prompt (``relevance``), or half by importance and half by relevance (``mixed``)."""
    k: NonNegativeInt = 8
    """How many past prompts to show."""


class NoTrajectoryConfig(Section):
    """Show the optimizer model the current prompt only."""

    kind: Literal["none"]


class SummaryConfig(Section):
    """Show the optimizer model a summary of the search so far, which it updates in every step."""

    kind: Literal["summary"]


class DirectionConfig(Section):
    """The update direction: what the optimizer model learns from."""

    form: Literal["prompt", "score", "score_reflection", "feedback"] = "score"
    """What is shown of prompts. ``prompt``: their texts. ``score``: texts and scores. ``feedback``: also wrong answers
    of the current prompt to a batch of ``train``, and why they are wrong. ``score_reflection``: also a reflection on
    these answers, which the optimizer model writes first."""
    failures: PositiveInt = 3
    """Most wrong answers that are shown, or that a reflection is based on."""
    trajectory: Annotated[
        Annotated[RetrievalConfig, Tag("retrieval")]
        | Annotated[SummaryConfig, Tag("summary")]
        | Annotated[NoTrajectoryConfig, Tag("none")]
        | Annotated[OwnRetrievalConfig, Tag(OWN)],
        by_kind("retrieval", "summary", "none", OWN),
    ] = RetrievalConfig()
    """What is shown of the trajectory so far."""

    @property
    def answers_train(self) -> bool:
        """Whether the task model answers each step's batch of ``train``."""
        return self.form in ("feedback", "score_reflection")

    @property
    def num_neighbours(self) -> int:
        """How many past prompts are shown."""
        return self.trajectory.k if isinstance(self.trajectory, RetrievalConfig | OwnRetrievalConfig) else 0

    def build_retriever(self, embedder: Embedder) -> Retriever:
        """The retriever; any one if no past prompt is shown."""
        if isinstance(self.trajectory, OwnRetrievalConfig):
            return self.trajectory.build(embedder)
        retrievers: dict[str, Retriever] = {
            "recency": RecencyRetriever(),
            "importance": ImportanceRetriever(),
            "relevance": RelevanceRetriever(embedder),
            "mixed": MixedRetriever(embedder),
        }
        return retrievers[self.trajectory.by if isinstance(self.trajectory, RetrievalConfig) else "recency"]

    def build_summarizer(self, model: ChatModel, sampling: Sampling) -> Summarizer:
        """The summarizer, on the optimizer model."""
        if self.trajectory.kind != "summary":
            return NoSummary()
        return RunningSummary(model=model, sampling=sampling, show_scores=self.form != "prompt")

    def build_reflector(
        self, model: ChatModel, sampling: Sampling, answerer: Answerer, examples: Sequence[Example]
    ) -> Reflector:
        """The reflector, on the optimizer model and the train split's examples."""
        if not self.answers_train:
            return NoReflection()
        if self.form == "feedback":
            return Feedback(answerer=answerer, examples=examples, num_failures=self.failures)
        return FailureReflector(
            model=model, sampling=sampling, answerer=answerer, examples=examples, num_failures=self.failures
        )


DEFAULT_STEPS = 12
SHARED, OF_METHOD = OptionInfo(in_comparison="shared"), OptionInfo(in_comparison="method")


class RefinementConfig(Section):
    """The update method: how a new prompt is made."""

    kind: Literal["generation", "editing", "paraphrase"] = "generation"
    """``generation``: the optimizer model writes a new prompt, guided by the direction. ``editing``: it changes some
    words of the current prompt and keeps the rest. ``paraphrase``: it rephrases the current prompt."""
    enforce: bool = False
    """Sample a prompt again if it changes more words than the step size allows. Otherwise the step size is only part of
    the instruction."""
    max_samples: Annotated[int, Field(ge=2)] = 4
    """Most samples for one candidate, with ``enforce``."""

    def build(self) -> Refinement:
        """The instruction for the optimizer model."""
        refinements: dict[str, Refinement] = {
            "generation": Generation(),
            "editing": Editing(),
            "paraphrase": Paraphrase(),
        }
        return refinements[self.kind]


class MetaPromptConfig(Section):
    """The meta-prompt: how the optimizer model is asked for new prompts."""

    kind: Literal["demonstrations", "full", "compact"] | None = None
    """``demonstrations``: solved requests for other tasks, and then the request, for models from about a billion
    parameters. ``full``: one long instruction. ``compact``: pairs of prompts without scores, for models of some hundred
    million parameters. Default: ``full`` with a refinement of your own; ``compact`` if the optimizer model is the
    embedded default; otherwise ``demonstrations``, and with the preset ``paper``, ``full``."""
    exemplars: NonNegativeInt = 3
    """Train examples that are shown, drawn from the step's batch; ``compact`` shows none."""
    extra: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    """Sentences of your own for the optimizer model, which stand before its request."""
    template: Annotated[ConfigPath | None, LOCATION] = None
    """Instead of ``kind``, a file with a meta-prompt of your own, a Jinja template. It must contain ``{{ prompt }}``,
    ask for the new prompt between ``<START>`` and ``<END>``, and show ``rules`` if a task has any. It can use
    ``score``, ``examples`` (``input``, ``target``), ``earlier`` (``prompt``, ``score``), ``failures`` (``input``,
    ``target``, ``answer``, ``reason``), ``goal``, ``rules``, ``step_size``, ``reflection`` and ``summary``."""
    text: str | None = None
    """The content of ``template``. A run writes it into its ``config.yaml``, so that it can be resumed without the
    file."""

    @model_validator(mode="after")
    def _template_is_read(self) -> Self:
        if (self.template or self.text) and self.kind is not None:
            raise unfit("is set as well as template; keep one of the two", at="kind")
        try:
            # A run that is resumed elsewhere has the text without the file.
            if self.template is not None and (self.text is None or self.template.exists()):
                # Assignment would validate again.
                object.__setattr__(self, "text", read_text(self.template, "template"))
            if (own := self.own) is not None:
                own.check()
        except ConfigError as error:
            raise unfit(f"{error.problem}; {error.remedy}", at="template") from None
        return self

    @property
    def own(self) -> TemplateMetaPrompt | None:
        """The user's own meta-prompt, if there is one."""
        return None if self.text is None else TemplateMetaPrompt(Template(self.text, "optimizer.meta_prompt.template"))

    def build(self, refinement: RefinementConfig | OwnRefinementConfig, form: str) -> MetaPrompt:
        """The meta-prompt for this refinement and form of direction."""
        return self._extended(self.own or self._built(refinement, form))

    def build_first(self) -> MetaPrompt:
        """The meta-prompt for first prompts, which are written from the goal of a task."""
        return self._extended(GoalMetaPrompt(is_compact=self.kind == "compact"))

    def _extended(self, built: MetaPrompt) -> MetaPrompt:
        return built if self.extra is None else ExtendedMetaPrompt(built, self.extra)

    def _built(self, refinement: RefinementConfig | OwnRefinementConfig, form: str) -> MetaPrompt:
        shows_scores = form != "prompt"
        if isinstance(refinement, OwnRefinementConfig):
            return FullMetaPrompt(refinement.build(), show_scores=shows_scores)
        match self.kind:
            case "compact":
                return CompactMetaPrompt(refinement.kind, by_score=shows_scores)
            case "full":
                return FullMetaPrompt(refinement.build(), show_scores=shows_scores)
            case _:
                return DemonstrationMetaPrompt(refinement.kind, show_scores=shows_scores)


class BestSoFarConfig(Section):
    """Continue from the best prompt of the search; estimates count less one standard error."""

    kind: Literal["best_so_far"] = "best_so_far"

    def build(self) -> Acceptance:
        """The acceptance rule."""
        return BestSoFar()


class BestOfStepConfig(Section):
    """Accept the best new candidate, even if it is worse than the current prompt; the reference runs do so."""

    kind: Literal["best_of_step"]

    def build(self) -> Acceptance:
        """The acceptance rule."""
        return BestOfStep()


class StrictImprovementConfig(Section):
    """Accept the best new candidate only if it is better than the current prompt."""

    kind: Literal["strict_improvement"]

    def build(self) -> Acceptance:
        """The acceptance rule."""
        return StrictImprovement()


class WithinErrorConfig(Section):
    """Accept the best new candidate, but return to the best prompt so far if the candidate is measurably worse."""

    kind: Literal["within_error"]
    standard_errors: NonNegativeFloat = 1.0
    """How many standard errors of the paired difference a candidate may be below the best prompt so far."""

    def build(self) -> Acceptance:
        """The acceptance rule."""
        return WithinError(self.standard_errors)


class OptimizerConfig(Section):
    """The search: its length, and its strategies."""

    steps: Annotated[NonNegativeInt | None, SHARED] = None
    """Steps of each trajectory. Default: those of ``epochs`` if that is set, otherwise 12."""
    epochs: Annotated[PositiveInt | None, SHARED] = None
    """Passes over ``train``, with one step per batch; instead of ``steps``."""
    batch_size: Annotated[PositiveInt, SHARED] = 8
    """Train examples per step, for feedback, reflections and the examples in the meta-prompt."""
    candidates: Annotated[PositiveInt, SHARED] = 8
    """New prompts per step."""
    direction: Annotated[DirectionConfig, OF_METHOD] = DirectionConfig()
    """What the optimizer model learns from."""
    schedule: Annotated[ScheduleConfig, OF_METHOD] = CosineScheduleConfig()
    """How many words may change in each step."""
    refinement: Annotated[
        Annotated[RefinementConfig, Tag("generation")]
        | Annotated[RefinementConfig, Tag("editing")]
        | Annotated[RefinementConfig, Tag("paraphrase")]
        | Annotated[OwnRefinementConfig, Tag(OWN)],
        by_kind("generation", "editing", "paraphrase", OWN),
        OF_METHOD,
    ] = RefinementConfig()
    """How a new prompt is made."""
    meta_prompt: MetaPromptConfig = MetaPromptConfig()
    """How the optimizer model is asked for new prompts."""
    acceptance: Annotated[
        Annotated[BestSoFarConfig, Tag("best_so_far")]
        | Annotated[BestOfStepConfig, Tag("best_of_step")]
        | Annotated[StrictImprovementConfig, Tag("strict_improvement")]
        | Annotated[WithinErrorConfig, Tag("within_error")]
        | Annotated[OwnAcceptanceConfig, Tag(OWN)],
        by_kind("best_so_far", "best_of_step", "strict_improvement", "within_error", OWN),
        OF_METHOD,
    ] = BestSoFarConfig()
    """Which prompt becomes the current one after a step."""

    @model_validator(mode="before")
    @classmethod
    def _default_steps(cls, optimizer: Any) -> Any:
        """Write the default out, since it depends on ``epochs``."""
        if isinstance(optimizer, dict) and optimizer.get("steps") is None and optimizer.get("epochs") is None:
            return {**optimizer, "steps": DEFAULT_STEPS}
        return optimizer

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise unfit("is set as well as steps; leave one of the two out", at="epochs")
        return self

    @model_validator(mode="after")
    def _enforced_step_size_exists(self) -> Self:
        if self.refinement.enforce and self.schedule.kind == "none":
            raise unfit(
                "has no step size to enforce, since schedule.kind is none; choose a schedule, or leave it out",
                at="refinement.enforce",
            )
        return self

    @model_validator(mode="after")
    def _own_refinement_is_shown(self) -> Self:
        if isinstance(self.refinement, OwnRefinementConfig):
            if self.meta_prompt.kind not in (None, "full"):
                problem = f"is {self.meta_prompt.kind}, which does not show the instruction of optimizer.refinement"
                raise unfit(f"{problem}; set full, or leave it out", at="meta_prompt.kind")
            if self.meta_prompt.own is not None:
                raise unfit(
                    "does not show the instruction of optimizer.refinement; keep one of the two",
                    at="meta_prompt.template",
                )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        # The number of steps in an epoch is known only once the data is loaded.
        if self.steps is not None and not self.warm_up_fits(self.steps):
            raise unfit(
                f"{self.schedule.warmup_steps} is too large for {self.steps} steps; use a smaller value",
                at="schedule.warmup_steps",
            )
        return self

    def num_steps(self, num_train: int) -> int:
        """The steps of a trajectory whose task has this many train examples."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * ceil(num_train / self.batch_size)

    def warm_up_fits(self, num_steps: int) -> bool:
        """Whether the warm-up leaves at least one step for the decay."""
        return self.schedule.warmup_steps == 0 or self.schedule.warmup_steps < num_steps
