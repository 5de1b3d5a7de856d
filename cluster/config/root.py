"""The whole configuration of a run, and its sections ``run``, ``evaluation``, ``cluster`` and ``budget``."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.cache import CacheConfig, SqliteCacheConfig
from cluster.config.models import ChatEndpointConfig, EmbeddedChatConfig, ModelsConfig
from cluster.config.observability import MetricsConfig, TracingConfig, TrackingConfig
from cluster.config.optimizer import DEFAULT_STEPS, MetaPromptConfig, OptimizerConfig
from cluster.config.secrets import IN_ENVIRONMENT, PROBLEM, holds_credentials
from cluster.config.section import OptionInfo, Section
from cluster.config.tasks import Tasks
from gpo.data.task import Split, Task
from gpo.limits.messages import Budget
from gpo.scoring.candidates import CandidateScoring, FullScoring
from gpo.scoring.racing import Racing


class RacingConfig(Section):
    """Candidates answer ``val`` block by block; those that cannot become the best of their step are dropped."""

    block: Annotated[int, Field(ge=2)] = 10
    """Examples of the first block. Later ones grow as candidates are dropped, so that each round is as many calls."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Level of the tests after each block, corrected for the number of candidates: about the share of steps that lose
    their best where eight candidates are equally good, which is the hardest case. Smaller is safer and saves less."""


class EvaluationConfig(Section):
    """How prompts are scored."""

    val_size: PositiveInt | None = None
    """Score on at most so many ``val`` examples, always the same ones."""
    test_size: PositiveInt | None = None
    """Likewise for ``test``."""
    max_unscored: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of an evaluation's examples that may stay unscored because their calls failed for good."""
    racing: Annotated[RacingConfig | None, OptionInfo(tunable=True)] = None
    """Drop candidates before they have answered all of ``val``; null scores every candidate in full."""

    def build_scoring(self, num_val: int, seed: int) -> CandidateScoring:
        """How candidates are scored on ``num_val`` examples."""
        if self.racing is None:
            return FullScoring()
        return Racing(
            num_examples=num_val,
            block=self.racing.block,
            alpha=self.racing.alpha,
            max_unscored=self.max_unscored,
            seed=seed,
        )


MAY_CHANGE = OptionInfo(may_change=True)
_MOST_ACTORS = 16
_MOST_REPLICAS = 8
_FEWEST_EXAMPLES = 300
_CALLS_OF_REPLICA = 64
"""At 200 ms each, more keep a replica's core busy beyond what leaves room for bursts."""


def _without_credentials(place: str) -> str:
    if holds_credentials(place):
        raise PydanticCustomError("run_dir", "{problem}; {remedy}", {"problem": PROBLEM, "remedy": IN_ENVIRONMENT})
    return place


class RunSection(Section):
    """What the run is called, and which seeds it covers."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "run"
    """Letters, digits, ``.``, ``_`` and ``-``."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), OptionInfo(tracked=True)] = (0,)
    """One trajectory per task and seed."""
    dir: Annotated[str, AfterValidator(_without_credentials), MAY_CHANGE] = "runs"
    """Folder or fsspec URL in which each run gets a folder of its own, relative to where the command is typed. A URL
    without user name and password: those come from the environment."""


class ClusterConfig(Section):
    """How the work is spread over Ray."""

    trajectories_per_actor: PositiveInt | None = None
    """Trajectories that share an actor, and with it a process. Left out: 8, or as many more as it takes to need no more
    than 16 actors."""
    actor_cpus: Annotated[float, Field(ge=0)] = 0.1
    """CPUs that Ray reserves for a trajectory actor, which mostly waits."""
    actor_restarts: NonNegativeInt = 3
    """How often an actor that died is started again; its trajectories go on from their checkpoints."""
    evaluator_replicas: PositiveInt | None = None
    """Serve replicas of the evaluator: processes that call the task model side by side. Left out: one for each 64 calls
    that the task model's ``max_concurrency`` allows at once, 8 at most."""
    evaluator_cpus: Annotated[float, Field(ge=0)] = 0.1
    """CPUs that Ray reserves for a replica."""


class BudgetConfig(Section):
    """Bounds on what a run may spend, in all its sittings. Where one is reached, it stops and can be resumed."""

    calls: PositiveInt | None = None
    """Model calls that are answered, of all roles; cached ones cost nothing."""
    tokens: PositiveInt | None = None
    """Tokens sent and generated; calls that are under way when it is reached come on top."""
    usd: Annotated[float, Field(gt=0)] | None = None
    """Dollars, by the prices of the models; calls that are under way when it is reached come on top."""
    wall_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds from start to end; only of ``gpo run`` and of each method of ``gpo compare``."""

    def build(self) -> Budget:
        """What an account is held to; time is not its matter."""
        return Budget(self.calls, self.tokens, self.usd)


class RunConfig(Section):
    """A run: every task with every seed."""

    run: RunSection = RunSection()
    models: ModelsConfig
    tasks: Tasks
    optimizer: Annotated[OptimizerConfig, OptionInfo(tunable=True, tracked=True)] = OptimizerConfig(steps=DEFAULT_STEPS)
    evaluation: Annotated[EvaluationConfig, OptionInfo(tracked=True)] = EvaluationConfig()
    cluster: Annotated[ClusterConfig, MAY_CHANGE] = ClusterConfig()
    cache: Annotated[CacheConfig, MAY_CHANGE] = SqliteCacheConfig()
    budget: Annotated[BudgetConfig, MAY_CHANGE] = BudgetConfig()
    metrics: Annotated[MetricsConfig, MAY_CHANGE] = MetricsConfig()
    tracing: Annotated[TracingConfig, MAY_CHANGE] = TracingConfig()
    tracking: Annotated[TrackingConfig, MAY_CHANGE] = TrackingConfig()

    @model_validator(mode="after")
    def _names_and_seeds_are_distinct(self) -> Self:
        for place, values in (("tasks", [task.name for task in self.tasks]), ("run.seeds", self.run.seeds)):
            repeated = next((value for value in values if list(values).count(value) > 1), None)
            if repeated is not None:
                raise PydanticCustomError(
                    "repeated", "{value} stands twice; give each its own", {"at": place, "value": str(repeated)}
                )
        return self

    @model_validator(mode="after")
    def _money_can_be_counted(self) -> Self:
        models = (self.models.task, self.models.optimizer, self.models.judge)
        prices = [model.price for model in models if isinstance(model, ChatEndpointConfig)]
        if self.budget.usd is not None and not any(price.prompt or price.completion for price in prices):
            raise PydanticCustomError(
                "no_price", "is set, and no model has a price; give models.task.price and models.optimizer.price",
                {"at": "budget.usd"},
            )  # fmt: skip
        return self

    @property
    def num_replicas(self) -> int:
        """Replicas of the evaluator."""
        if self.cluster.evaluator_replicas is not None:
            return self.cluster.evaluator_replicas
        return min(_MOST_REPLICAS, ceil(self._calls_at_once / _CALLS_OF_REPLICA))

    @property
    def examples_at_once(self) -> int:
        """Examples that a replica begins before it has answered others: more than its calls at once.

        No more than needed: beginning takes time in which it sends no call.
        """
        return max(_FEWEST_EXAMPLES, 4 * ceil(self._calls_at_once / self.num_replicas))

    @property
    def _calls_at_once(self) -> int:
        model = self.models.task
        return model.max_concurrency if isinstance(model, ChatEndpointConfig) else model.parallel

    @property
    def num_actors(self) -> int:
        """How many actors the trajectories are spread over."""
        return ceil(self._num_trajectories / self.trajectories_per_actor)

    @property
    def trajectories_per_actor(self) -> int:
        """Trajectories that share an actor: a process costs far more memory than a trajectory in it."""
        return self.cluster.trajectories_per_actor or max(8, ceil(self._num_trajectories / _MOST_ACTORS))

    def num_steps(self, task: Task) -> int:
        """Steps of each trajectory on a task."""
        return self.optimizer.num_steps(len(task.examples[Split.TRAIN]))

    @property
    def _num_trajectories(self) -> int:
        return len(self.tasks) * len(self.run.seeds)

    @property
    def meta_prompt(self) -> MetaPromptConfig:
        """The meta-prompt's settings: those given, or the ones that suit the optimizer model."""
        model = self.models.optimizer
        small = isinstance(model, EmbeddedChatConfig) and model.gguf is None
        return self.optimizer.meta_prompt or MetaPromptConfig(kind="compact" if small else "full")
