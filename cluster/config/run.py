"""The whole configuration of a run, and its sections ``run``, ``evaluation``, ``budget`` and ``stop``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from cluster.config.cache import CacheConfig, SqliteCacheConfig
from cluster.config.cluster import ClusterConfig
from cluster.config.models import ChatEndpointConfig, EmbeddedChatConfig, FunctionChatConfig, ModelsConfig
from cluster.config.observability import MetricsConfig, RecordConfig, TracingConfig, TrackingConfig
from cluster.config.optimizer import DEFAULT_STEPS, MetaPromptConfig, OptimizerConfig
from cluster.config.own_strategies import OwnStrategyConfig
from cluster.config.presets import PresetName, with_preset
from cluster.config.secrets import IN_ENVIRONMENT, PROBLEM, holds_credentials
from cluster.config.section import OWN, OptionInfo, Section, by_kind, unfit
from cluster.config.tasks import Tasks
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.limits.messages import Budget
from gpo.scoring.adaptive import Adaptive
from gpo.scoring.candidates import CandidateScoring, FullScoring
from gpo.scoring.own import OwnScoring
from gpo.scoring.racing import Racing
from gpo.strategies.stopping import StoppingRule


class _CompleteScoringConfig(Section):
    """Part of a section whose initial prompt answers all of ``val``."""

    def most_answers(self, num_val: int, num_steps: int, num_candidates: int) -> int:
        """The largest number of ``val`` examples that a search answers."""
        return num_val * (1 + num_steps * num_candidates)

    def first_example(self, num_val: int, seed: int) -> int:
        """An example of ``val`` that the initial prompt answers, whatever the search finds."""
        return 0


class FullScoringConfig(_CompleteScoringConfig):
    """Every candidate answers all of ``val``; the paper's runs do so."""

    kind: Literal["full"]

    def build(self, val: Sequence[Example], max_unscored: float, seed: int) -> CandidateScoring:
        """The scoring of a search with these ``val`` examples."""
        return FullScoring()


class RacingConfig(_CompleteScoringConfig):
    """Candidates answer ``val`` in blocks; after each block, those that can no longer win their step are dropped."""

    kind: Literal["racing"]
    block: Annotated[int, Field(ge=2)] = 10
    """Examples in the first block. Later blocks grow as candidates drop out, so that each round has as many calls."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Level of the test after each block, corrected for the number of candidates: about the share of steps that drop
    their best candidate if eight candidates are equally good, the hardest case. Smaller values are safer and save
    fewer calls."""

    def build(self, val: Sequence[Example], max_unscored: float, seed: int) -> CandidateScoring:
        """The scoring of a search with these ``val`` examples."""
        return Racing(num_examples=len(val), block=self.block, alpha=self.alpha, max_unscored=max_unscored, seed=seed)


class OwnScoringConfig(OwnStrategyConfig, _CompleteScoringConfig):
    """A scoring of candidates of your own."""

    passed = ("num_val", "max_unscored", "seed")

    def build(self, val: Sequence[Example], max_unscored: float, seed: int) -> OwnScoring:
        """The scoring of a search with these ``val`` examples."""
        given = {"num_val": len(val), "max_unscored": max_unscored, "seed": seed}
        return OwnScoring(self.function, self.arguments, given)


class AdaptiveScoringConfig(Section):
    """Candidates answer the examples that tell most about them; the best prompt answers all of ``val`` at the end."""

    kind: Literal["adaptive"] = "adaptive"
    block: PositiveInt = 3
    """Examples in the first block. Later blocks grow as candidates drop out, so that each has about as many calls."""
    most: Annotated[int, Field(ge=2)] = 12
    """Examples that the initial prompt answers, and that a candidate answers at most."""

    def build(self, val: Sequence[Example], max_unscored: float, seed: int) -> Adaptive:
        """The scoring of a search with these ``val`` examples."""
        targets = tuple(example.target for example in val)
        return replace(self._of(len(val), seed), max_unscored=max_unscored, targets=targets)

    def _of(self, num_val: int, seed: int) -> Adaptive:
        return Adaptive(num_examples=num_val, block=self.block, most=self.most, max_unscored=0.0, seed=seed)

    def most_answers(self, num_val: int, num_steps: int, num_candidates: int) -> int:
        """The largest number of ``val`` examples that a search answers, if two prompts are confirmed in the end."""
        scoring = self._of(num_val, seed=0)
        most, asked, left, in_step = min(self.most, num_val), 0, num_candidates, 0
        while asked < most and left:
            size = scoring.next_block(asked, num_candidates, left)
            asked, in_step, left = asked + size, in_step + left * size, ceil(left / 2)
        in_step += min(self.block, num_val - min(self.block, num_val))  # of the current prompt
        return most + num_steps * in_step + 2 * (num_val - min(self.block, most))

    def first_example(self, num_val: int, seed: int) -> int:
        """An example of ``val`` that the initial prompt answers, whatever the search finds."""
        return self._of(num_val, seed).initial_block[0]


def _kind_alone(value: Any) -> Any:
    """``scoring: full`` stands for ``scoring: {kind: full}``."""
    return {"kind": value} if isinstance(value, str) else value


class EvaluationConfig(Section):
    """How prompts are scored."""

    val_size: PositiveInt | None = None
    """Most ``val`` examples to score on, always the same ones. Default: all."""
    test_size: PositiveInt | None = None
    """Most ``test`` examples to score on, always the same ones. Default: all."""
    max_unscored: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of an evaluation's examples that may stay unscored because their calls failed after all retries."""
    scoring: Annotated[
        Annotated[AdaptiveScoringConfig, Tag("adaptive")]
        | Annotated[RacingConfig, Tag("racing")]
        | Annotated[FullScoringConfig, Tag("full")]
        | Annotated[OwnScoringConfig, Tag(OWN)],
        by_kind("adaptive", "racing", "full", OWN),
        BeforeValidator(_kind_alone),
        OptionInfo(tunable=True),
    ] = AdaptiveScoringConfig()
    """On how many examples of ``val`` the candidates of a step are scored. A name alone, such as ``full``, selects a
    kind with its defaults."""


MAY_CHANGE, OF_SERVICE = OptionInfo(may_change=True), OptionInfo(may_change=True, posted="service")
_MOST_ACTORS = 16
_MOST_REPLICAS = 8
_FEWEST_EXAMPLES = 300
_CALLS_OF_REPLICA = 64
"""At 200 ms per call, more calls keep a replica's core so busy that bursts wait."""


def _without_credentials(location: str) -> str:
    if holds_credentials(location):
        raise unfit(f"{PROBLEM}; {IN_ENVIRONMENT}")
    return location


class RunSection(Section):
    """Name, seeds and folder of the run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "run"
    """Name of the run: letters, digits, ``.``, ``_`` and ``-``."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), OptionInfo(tracked=True)] = (0,)
    """Seeds; there is one trajectory per task and seed."""
    dir: Annotated[str, AfterValidator(_without_credentials), OF_SERVICE] = "runs"
    """Folder or fsspec URL that holds a folder per run; relative to the working directory. A URL must not hold a user
    name or password: set those in the environment."""


class BudgetConfig(Section):
    """Bounds on what a run may spend over all its attempts. A run that reaches one stops and can be resumed."""

    calls: PositiveInt | None = None
    """Most answered model calls of all roles; cached calls do not count. Default: no bound."""
    tokens: PositiveInt | None = None
    """Most tokens, sent and generated; calls that are in flight when the bound is reached come on top. Default: no
    bound."""
    usd: Annotated[float, Field(gt=0)] | None = None
    """Most dollars, by the models' prices; calls that are in flight when the bound is reached come on top. Default: no
    bound."""
    wall_s: Annotated[float, Field(gt=0)] | None = None
    """Most seconds of a run, of a sweep's work in one folder, or of each method of a comparison. Default: no bound."""

    def build(self) -> Budget:
        """The bounds that the limiter enforces: all but the time."""
        return Budget(self.calls, self.tokens, self.usd)


class StopConfig(Section):
    """When a trajectory ends before it has taken all its steps. Each condition is enough."""

    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    """End once the lower end of the 90 % interval of the best prompt's ``val`` score is at least this. The interval
    does not allow for the choice of the best prompt. Default: no target."""
    patience: PositiveInt | None = None
    """End after so many steps in a row in which the best prompt has not improved by more than one standard error.
    Default: no such end."""

    def build(self) -> StoppingRule:
        """The rule that the optimizer follows."""
        return StoppingRule(self.target, self.patience)


class RunConfig(Section):
    """A run: every task with every seed."""

    preset: PresetName = "efficient"
    """Defaults for options that are left out. ``efficient``: adaptive scoring, eight past prompts shown (the best ones
    and those closest in meaning), and each step starts from the best prompt so far. ``paper``: full scoring, the three
    past prompts closest in meaning, and each step starts from the best prompt of the step before, as in the paper."""
    run: RunSection = RunSection()
    """Name, seeds and folder of the run."""
    models: ModelsConfig
    """The language models."""
    tasks: Tasks
    """The tasks that prompts are optimized for."""
    optimizer: Annotated[OptimizerConfig, OptionInfo(tunable=True, tracked=True)] = OptimizerConfig(steps=DEFAULT_STEPS)
    """The search: steps, candidates and strategies."""
    evaluation: Annotated[EvaluationConfig, OptionInfo(tracked=True)] = EvaluationConfig()
    """How prompts are scored."""
    cluster: Annotated[ClusterConfig, OF_SERVICE] = ClusterConfig()
    """How the work is distributed over Ray."""
    cache: Annotated[CacheConfig, OF_SERVICE] = SqliteCacheConfig()
    """Where completions are kept, so that no call is paid for twice."""
    budget: Annotated[BudgetConfig, MAY_CHANGE] = BudgetConfig()
    """Bounds on what the run may spend."""
    stop: Annotated[StopConfig, MAY_CHANGE] = StopConfig()
    """When a trajectory ends before it has taken all its steps."""
    record: Annotated[RecordConfig, OF_SERVICE] = RecordConfig()
    """Which answers of the task model are kept."""
    metrics: Annotated[MetricsConfig, OF_SERVICE] = MetricsConfig()
    """Prometheus metrics."""
    tracing: Annotated[TracingConfig, OF_SERVICE] = TracingConfig()
    """OpenTelemetry traces."""
    tracking: Annotated[TrackingConfig, OF_SERVICE] = TrackingConfig()
    """Runs and trials in MLflow."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:
        return with_preset(data)

    @model_validator(mode="after")
    def _names_and_seeds_are_distinct(self) -> Self:
        names = [task.name for task in self.tasks]
        for path, what, values in (("tasks", "task name", names), ("run.seeds", "seed", self.run.seeds)):
            repeated = next((value for value in values if list(values).count(value) > 1), None)
            if repeated is not None:
                raise unfit(f"duplicate {what} '{repeated}'; {what}s must be unique", at=path)
        return self

    @model_validator(mode="after")
    def _money_can_be_counted(self) -> Self:
        models = (self.models.task, self.models.optimizer, self.models.judge)
        if self.budget.tokens is not None and any(isinstance(model, FunctionChatConfig) for model in models):
            raise unfit(
                "is set, but the tokens of a model of kind function are not known; set budget.calls instead",
                at="budget.tokens",
            )
        prices = [model.price for model in models if isinstance(model, ChatEndpointConfig)]
        if self.budget.usd is not None and not any(price.prompt or price.completion for price in prices):
            raise unfit(
                "is set, but no model has a price; set models.task.price and models.optimizer.price", at="budget.usd"
            )
        return self

    @model_validator(mode="after")
    def _own_meta_prompt_shows_rules(self) -> Self:
        own = self.optimizer.meta_prompt.own
        if own is not None and not own.shows_rules:
            for task in self.tasks:
                if task.must_keep or task.max_words or task.forbid or task.language:
                    problem = f"does not show the constraints of task {task.name}"
                    remedy = "write {{ rules | join(' ') }} where they belong"
                    raise unfit(f"{problem}; {remedy}", at="optimizer.meta_prompt.template")
        return self

    @property
    def num_replicas(self) -> int:
        """How many replicas of the evaluator there are."""
        if self.cluster.evaluator_replicas is not None:
            return self.cluster.evaluator_replicas
        return min(_MOST_REPLICAS, ceil(self._calls_at_once / _CALLS_OF_REPLICA))

    @property
    def examples_at_once(self) -> int:
        """How many examples a replica works on at once: more than its concurrent calls, so that calls never wait.

        Not many more, since a replica sends no calls while it starts examples.
        """
        return max(_FEWEST_EXAMPLES, 4 * ceil(self._calls_at_once / self.num_replicas))

    @property
    def _calls_at_once(self) -> int:
        model = self.models.task
        return model.parallel if isinstance(model, EmbeddedChatConfig) else model.max_concurrency

    @property
    def num_actors(self) -> int:
        """How many actors the trajectories are distributed over."""
        return ceil(self._num_trajectories / self.trajectories_per_actor)

    @property
    def trajectories_per_actor(self) -> int:
        """How many trajectories share an actor: a process costs far more memory than a trajectory in it."""
        return self.cluster.trajectories_per_actor or max(8, ceil(self._num_trajectories / _MOST_ACTORS))

    def num_steps(self, task: Task) -> int:
        """Steps of each trajectory on a task, including the step of its first prompts."""
        return self.num_updates(task) + task.has_first_prompts

    def num_updates(self, task: Task) -> int:
        """Steps of each trajectory on a task that change the current prompt, as the optimizer's section states."""
        return self.optimizer.num_steps(len(task.examples[Split.TRAIN]))

    def with_prompts(self, tasks: Sequence[Task]) -> Self:
        """The configuration with the prompts of the files and runs that it names, as they are in the loaded tasks."""
        pairs = zip(self.tasks, tasks, strict=True)
        read = tuple(one.with_prompts([prompt.text for prompt in (task.initial, *task.given)]) for one, task in pairs)
        return self.model_copy(update={"tasks": read})

    @property
    def _num_trajectories(self) -> int:
        return len(self.tasks) * len(self.run.seeds)

    @property
    def meta_prompt(self) -> MetaPromptConfig:
        """The meta-prompt's settings, with the kind that suits the optimizer model and the preset."""
        model, settings = self.models.optimizer, self.optimizer.meta_prompt
        small = isinstance(model, EmbeddedChatConfig) and model.gguf is None
        default = "compact" if small else "full" if self.preset == "paper" else "demonstrations"
        return settings if settings.kind or settings.own else settings.model_copy(update={"kind": default})
