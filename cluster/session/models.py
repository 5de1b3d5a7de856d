"""Builds tasks, models and evaluators from a checked configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

from cluster.config import RunConfig
from cluster.config.functions import require_loadable
from cluster.config.models import (
    ChatEndpointConfig,
    EmbeddedChatConfig,
    EmbeddedEmbeddingConfig,
    EndpointConfig,
    FunctionChatConfig,
    SamplingConfig,
)
from cluster.config.prompts import PromptRunConfig
from cluster.session.earlier_run import earlier_run
from gpo.data.task import Split, Task
from gpo.errors import ConfigError, StrategyError
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import Grader, ModelGrader, RuleGrader
from gpo.evaluation.metrics import Rubric, Scorer
from gpo.evaluation.program import Program, ProgramSpec
from gpo.evaluation.program_calls import OfferedModel
from gpo.intervals import interval
from gpo.limits.gate import Gate
from gpo.limits.limiter import Limiter
from gpo.limits.messages import Budget, Pool
from gpo.models.adapting import AdaptingModel
from gpo.models.cached import CachedModel
from gpo.models.embedding import CachedEmbedder, StaticEmbedder
from gpo.models.limited import LimitedModel
from gpo.models.protocol import ChatModel, Embedder, Sampling
from gpo.models.retrying import RetryingModel, RetryPolicy
from gpo.score import Score
from gpo.user_code.strategies import OwnStrategy
from serve.embedded_model import EmbeddedModelSpec

if TYPE_CHECKING:
    from gpo.models.endpoint import Endpoint

ChatRole = Literal["task", "optimizer", "judge"]
_NAMES: Mapping[ChatRole, str] = {"task": "the task model", "optimizer": "the optimizer model", "judge": "the judge"}
Role = Literal[ChatRole, "embedding"]
EmbeddedUrls = Mapping[EmbeddedModelSpec, str]
"""The address of each embedded model's server."""
RefusedParameters = Mapping[tuple[str, str, str], frozenset[str]]
"""Role, ``base_url`` and model → parameters that are known to be refused there."""


@dataclass(frozen=True, slots=True)
class SampledModel:
    """A chat model and its sampling settings."""

    model: ChatModel
    sampling: Sampling


def embedded_spec(config: EmbeddedChatConfig) -> EmbeddedModelSpec:
    """The server of an embedded model."""
    return EmbeddedModelSpec(config.gguf, config.parallel, config.context, config.threads)


def embedded_specs(config: RunConfig) -> list[EmbeddedModelSpec]:
    """The servers of a run's embedded models; models with the same settings share one."""
    models = [config.models.task, config.models.optimizer, *([config.models.judging] if is_judged(config) else [])]
    return list(dict.fromkeys(embedded_spec(model) for model in models if isinstance(model, EmbeddedChatConfig)))


def is_judged(config: RunConfig) -> bool:
    """Whether a language model judges the answers of any task."""
    return any(task.answer.kind == "judge" for task in config.tasks)


def build_tasks(config: RunConfig, say: Callable[[str], object] = lambda _: None) -> list[Task]:
    """Load and check every task.

    Args:
        say: called with what the prompts of an earlier run scored there.

    Raises:
        ConfigError: the first task whose data or prompts cannot be used.
    """
    tasks = [build_task(config, index, say) for index in range(len(config.tasks))]
    check_strategies(config, tasks)
    _check_target(config, tasks)
    return tasks


def build_task(config: RunConfig, index: int, say: Callable[[str], object] = lambda _: None) -> Task:
    """Load and check one of the tasks, as ``build_tasks`` does."""
    own, sizes, where = config.tasks[index], config.evaluation, f"tasks[{index}]"
    if not isinstance(own.prompt, PromptRunConfig) or own.prompt.prompts is not None:
        return own.build(where, sizes.val_size, sizes.test_size)
    earlier = earlier_run(own.prompt, own.name, f"{where}.prompt")
    task = own.with_prompts(earlier.texts).build(where, sizes.val_size, sizes.test_size)
    say(earlier.statement(config, own, task))
    return task


def check_strategies(config: RunConfig, tasks: Sequence[Task]) -> None:
    """Check that the strategies suit every task: the length of the warm-up, and the user's own strategies.

    Raises:
        ConfigError: a task has too few steps; or a strategy of the user cannot be built, lacks a method, or returns
            what a search cannot use.
    """
    for task in tasks:
        num_steps = config.num_updates(task)
        if not config.optimizer.warm_up_fits(num_steps):
            raise ConfigError(
                "optimizer.schedule.warmup_steps",
                f"{config.optimizer.schedule.warmup_steps} is too large, task {task.name} has only {num_steps} steps",
                "use fewer warm-up steps",
            )
        for option, own in _own_strategies(config, task):
            require_loadable(own.function, option)
            try:
                own.check()
            except StrategyError as error:
                raise ConfigError(option, str(error), "correct the function, or its options") from None


def _own_strategies(config: RunConfig, task: Task) -> Iterator[tuple[str, OwnStrategy]]:
    """The user's own strategies in a search on this task, each with the option that names it."""
    settings, evaluation = config.optimizer, config.evaluation
    val, seed = task.examples[Split.VAL], config.run.seeds[0]
    strategies: dict[str, object] = {
        "optimizer.direction.trajectory.kind": settings.direction.build_retriever(StaticEmbedder()),
        "optimizer.schedule.kind": settings.schedule.build(config.num_updates(task)),
        "optimizer.refinement.kind": settings.refinement.build(),
        "optimizer.acceptance.kind": settings.acceptance.build(),
        "evaluation.scoring.kind": evaluation.scoring.build(val, evaluation.max_unscored, seed),
    }
    for option, strategy in strategies.items():
        if isinstance(strategy, OwnStrategy):
            yield option, strategy


def _check_target(config: RunConfig, tasks: Sequence[Task]) -> None:
    """Check that the target can be reached on a task. With few examples, no score is certain enough.

    Raises:
        ConfigError: it cannot.
    """
    target, num_val = config.stop.target, max(len(task.examples[Split.VAL]) for task in tasks)
    highest, _ = interval(Score((1.0,) * num_val))
    if target is not None and highest < target:
        raise ConfigError(
            "stop.target",
            f"{target:g} cannot be shown with {num_val} val examples: even if all answers are right, the true score is "
            f"at least {highest:.3f} with 95 % confidence",
            "lower the target, or use more val examples",
        )


@dataclass(frozen=True, slots=True)
class Access:
    """What the models of a run need besides the configuration.

    Attributes:
        urls: addresses of the embedded models.
        limiter: grants slots and permits.
        budget_name: the budget that pays for the calls.
        refused: the refused parameters that the check before the run found.
    """

    urls: EmbeddedUrls
    limiter: Limiter
    budget_name: str
    refused: RefusedParameters = field(default_factory=dict[tuple[str, str, str], frozenset[str]])


def build_evaluators(config: RunConfig, tasks: Sequence[Task], access: Access) -> list[LocalEvaluator]:
    """One evaluator per task; all share one task model and one judge."""
    task_model = chat_model(config, "task", access)

    @cache
    def judge() -> SampledModel:
        return chat_model(config, "judge", access)

    def grader(scorer: Scorer | Rubric) -> Grader:
        if isinstance(scorer, Rubric):
            return ModelGrader(scorer, judge().model, judge().sampling)
        return RuleGrader(scorer)

    @cache
    def offered() -> Mapping[str, OfferedModel]:
        return program_models(config, access)

    def program(spec: ProgramSpec | None) -> Program | None:
        return None if spec is None else Program(spec, offered())

    max_unscored = config.evaluation.max_unscored
    return [
        LocalEvaluator(
            task,
            task_model.model,
            task_model.sampling,
            grader(task.scorer),
            max_unscored,
            program(task.program),
            keeps_answers=config.record.answers != "none",
            keeps_calls=config.record.calls,
        )
        for task in tasks
    ]


def program_models(config: RunConfig, access: Access, *, retries: RetryPolicy | None = None) -> dict[str, OfferedModel]:
    """The models that a program can name in its requests: those of the configuration, the task model first.

    Args:
        retries: instead of the configured ones.
    """
    roles: tuple[ChatRole, ...] = ("task", "optimizer", *(("judge",) if config.models.judge is not None else ()))
    models: dict[str, OfferedModel] = {}
    for role in roles:
        stack = _stack(config, role, access, retries, is_cached=True)
        sampling = stack.sampling
        settings = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            stack.limit_field: sampling.max_tokens,
        }
        defaults = {name: value for name, value in settings.items() if value is not None}
        models.setdefault(stack.model_name, OfferedModel(stack.model, {**defaults, **sampling.extra}))
    embedding = config.models.embedding
    if isinstance(embedding, EndpointConfig):
        gate = _gate(config, "embedding", access)
        remote = _remote(embedding.build(), gate, retries or embedding.retries)
        identity, store = {"base_url": embedding.base_url, "model": embedding.model}, config.cache.build()
        cached = CachedModel(remote, store, identity, "embedding") if store else remote
        models.setdefault(embedding.model, OfferedModel(cached, {}))
    return models


@dataclass(frozen=True, slots=True)
class _Stack:
    """A role's model below what adapts requests to it, and what is known about it."""

    model: CachedModel | RetryingModel
    model_name: str
    sampling: SamplingConfig
    limit_field: str


def _stack(
    config: RunConfig, role: ChatRole, access: Access, retries: RetryPolicy | None, *, is_cached: bool
) -> _Stack:
    model, gate = _chat_config(config, role), _gate(config, role, access)
    if isinstance(model, FunctionChatConfig):
        policy = retries or model.retries
        limited = LimitedModel(model.build(), gate, policy.max_backoff_s)
        return _Stack(RetryingModel(limited, policy, gate), model.function, model.sampling, "max_tokens")
    limit_field = "max_tokens"
    if isinstance(model, ChatEndpointConfig):
        name, sampling, limit_field = model.model, model.sampling, model.completion_limit
        identity = {"base_url": model.base_url, "model": model.model, **model.variant}
        if model.completion_limit != "max_tokens":  # some servers ignore it
            identity["completion_limit"] = model.completion_limit
        remote = _remote(model.build(), gate, retries or model.retries, model.completion_limit)
    else:
        spec = embedded_spec(model)
        name, sampling, identity = spec.name, model.bounded_sampling, spec.identity
        from gpo.models.endpoint import Endpoint

        endpoint = Endpoint(
            base_url=access.urls[spec],
            model=spec.name,
            max_concurrency=model.parallel,
            timeout_s=model.timeout_s,
        )
        remote = _remote(endpoint, gate)
    store = config.cache.build() if is_cached else None
    return _Stack(CachedModel(remote, store, identity, role) if store else remote, name, sampling, limit_field)


def _remote(
    endpoint: Endpoint, gate: Gate, retries: RetryPolicy | None = None, completion_limit: str = "max_tokens"
) -> RetryingModel:
    # Imports openai, which takes as long as all else here. Commands that only load the tasks do without it.
    from gpo.models.openai import openai_model

    return openai_model(endpoint, gate, retries, completion_limit)


def chat_model(
    config: RunConfig, role: ChatRole, access: Access, *, retries: RetryPolicy | None = None, is_cached: bool = True
) -> SampledModel:
    """The model of a role, with retries, limits and the completion cache.

    Args:
        retries: instead of the configured ones.
        is_cached: whether it uses the cache.
    """
    model, stack = _chat_config(config, role), _stack(config, role, access, retries, is_cached=is_cached)
    if isinstance(model, FunctionChatConfig):  # it gets the settings that it takes
        return SampledModel(stack.model, stack.sampling.build())
    name, known = "the embedded model", frozenset[str]()
    if isinstance(model, ChatEndpointConfig):
        name = f"{_NAMES[role]} {model.model}"
        known = access.refused.get((role, model.base_url, model.model), known)
    if not stack.sampling.seed:
        known |= {"seed"}
    return SampledModel(AdaptingModel(stack.model, name, stack.limit_field, known), stack.sampling.build())


def embedder(config: RunConfig, access: Access, *, retries: RetryPolicy | None = None) -> Embedder:
    """The embedder of prompts, for retrieval by relevance; ``retries`` replace the configured ones."""
    embedding = config.models.embedding
    if isinstance(embedding, EmbeddedEmbeddingConfig):
        return StaticEmbedder()
    gate = _gate(config, "embedding", access)
    return CachedEmbedder(_remote(embedding.build(), gate, retries or embedding.retries))


def _chat_config(config: RunConfig, role: ChatRole) -> ChatEndpointConfig | EmbeddedChatConfig | FunctionChatConfig:
    return config.models.judging if role == "judge" else getattr(config.models, role)


def _gate(config: RunConfig, role: Role, access: Access) -> Gate:
    models = {
        "task": config.models.task,
        "optimizer": config.models.optimizer,
        "embedding": config.models.embedding,
        **({"judge": config.models.judging} if is_judged(config) or role == "judge" else {}),
    }
    targets = {name: _target(model, access.urls) for name, model in models.items()}
    url, name, concurrency = targets[role]
    budget = config.budget.build()
    rates = [
        (model.requests_per_min, model.tokens_per_min)
        for other, model in models.items()
        if isinstance(model, EndpointConfig) and targets[other][:2] == (url, name)
    ]
    pool = Pool(
        endpoint=url,
        model=name,
        concurrency=concurrency,
        endpoint_concurrency=max(limit for other, _, limit in targets.values() if other == url),
        requests_per_min=min((rate for rate, _ in rates if rate is not None), default=None),
        tokens_per_min=min((rate for _, rate in rates if rate is not None), default=None),
        role=role,
        budget_name=access.budget_name,
        has_budget=budget != Budget(),
        has_call_budget=budget.calls is not None,
        shared_env=config.cluster.shared_limits(),
    )
    return Gate(access.limiter, pool)


def _target(
    model: EndpointConfig | EmbeddedChatConfig | FunctionChatConfig | EmbeddedEmbeddingConfig, urls: EmbeddedUrls
) -> tuple[str, str, int]:
    """A model's URL, its name there, and its limit on requests in flight."""
    if isinstance(model, EndpointConfig):
        return model.base_url, model.model, model.max_concurrency
    if isinstance(model, FunctionChatConfig):
        return "python", model.function, model.max_concurrency
    if isinstance(model, EmbeddedChatConfig) and embedded_spec(model) in urls:
        # More requests than the server decodes together would only wait there.
        spec = embedded_spec(model)
        return urls[spec], spec.name, model.parallel
    return "", "", 0
