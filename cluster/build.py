"""From a checked configuration to the objects that do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from cluster.config import RunConfig
from cluster.config.models import ChatEndpointConfig, EmbeddedChatConfig, EmbeddedEmbeddingConfig
from gpo.completion_cache import CachedModel
from gpo.completion_store import CompletionStore
from gpo.endpoint import Endpoint
from gpo.errors import ConfigError
from gpo.evaluation import LocalEvaluator
from gpo.grading import Grader, ModelGrader, RuleGrader
from gpo.models import ChatModel, Embedder, Sampling
from gpo.openai_compatible import OpenAICompatibleEmbedder, OpenAICompatibleModel
from gpo.scoring import Rubric, Scorer
from gpo.static_embedding import StaticEmbedder
from gpo.tasks import Split, Task
from serve.embedded_model import EmbeddedModelSpec

EmbeddedUrls = Mapping[EmbeddedModelSpec, str]
"""Where each embedded model listens."""


@dataclass(frozen=True, slots=True)
class SampledModel:
    """A chat model and how replies are drawn from it."""

    model: ChatModel
    sampling: Sampling


def embedded_spec(config: EmbeddedChatConfig) -> EmbeddedModelSpec:
    """The server that this model needs."""
    return EmbeddedModelSpec(config.gguf, config.parallel, config.context, config.threads)


def embedded_specs(config: RunConfig) -> list[EmbeddedModelSpec]:
    """Every server that a run needs; models with the same settings share one."""
    models = [config.models.task, config.models.optimizer, *([config.models.judging] if is_judged(config) else [])]
    return list(dict.fromkeys(embedded_spec(model) for model in models if isinstance(model, EmbeddedChatConfig)))


def is_judged(config: RunConfig) -> bool:
    """Whether a language model judges the answers of any task."""
    return any(task.answer.kind == "judge" for task in config.tasks)


def optimizer_share(config: RunConfig) -> int:
    """How many processes of a run call the optimizer model: its actors, and the evaluator's where it judges, too."""
    judges = is_judged(config) and config.models.judge is None
    return config.num_actors + (config.cluster.evaluator_replicas if judges else 0)


def build_tasks(config: RunConfig) -> list[Task]:
    """Load and check every task.

    Raises:
        ConfigError: the first task whose data cannot be used.
    """
    sizes = config.evaluation
    tasks = [task.build(f"tasks[{index}]", sizes.val_size, sizes.test_size) for index, task in enumerate(config.tasks)]
    require_room_to_decay(config, tasks)
    return tasks


def require_room_to_decay(config: RunConfig, tasks: Sequence[Task]) -> None:
    """Refuse a warm-up that is as long as a task's whole search.

    Raises:
        ConfigError: the first task that takes too few steps.
    """
    for task in tasks:
        num_steps = config.optimizer.num_steps(len(task.examples[Split.TRAIN]))
        if not config.optimizer.warm_up_fits(num_steps):
            raise ConfigError(
                "optimizer.schedule.warmup_steps",
                f"{config.optimizer.schedule.warmup_steps} is too many, {task.name} takes only {num_steps} steps",
                "warm up in fewer",
            )


def build_evaluators(config: RunConfig, tasks: Sequence[Task], urls: EmbeddedUrls) -> list[LocalEvaluator]:
    """What scores prompts, one per task, over one task model and one judge."""
    replicas, store = config.cluster.evaluator_replicas, config.cache.build()
    task_model = chat_model(config.models.task, urls, store, share=replicas)

    @cache
    def judge() -> SampledModel:
        return chat_model(
            config.models.judging, urls, store, share=replicas if config.models.judge else optimizer_share(config)
        )

    def grader(scorer: Scorer | Rubric) -> Grader:
        if isinstance(scorer, Rubric):
            return ModelGrader(scorer, judge().model, judge().sampling)
        return RuleGrader(scorer)

    max_unscored = config.evaluation.max_unscored
    return [
        LocalEvaluator(task, task_model.model, task_model.sampling, grader(task.scorer), max_unscored) for task in tasks
    ]


def chat_model(
    config: ChatEndpointConfig | EmbeddedChatConfig,
    urls: EmbeddedUrls,
    store: CompletionStore | None = None,
    *,
    share: int,
) -> SampledModel:
    """The model of a role, for one of ``share`` processes that call it side by side.

    Args:
        store: where its completions are kept, if anywhere.
    """
    if isinstance(config, ChatEndpointConfig):
        endpoint, sampling = config.build(share), config.sampling
        model = OpenAICompatibleModel(endpoint, config.completion_limit)
        identity = {"base_url": config.base_url, "model": config.model}
    else:
        spec, sampling = embedded_spec(config), config.bounded_sampling
        endpoint = Endpoint(
            base_url=urls[spec],
            model=spec.name,
            # Its server queues what it cannot decode at once; more than that would only wait there.
            max_concurrency=config.parallel,
            timeout_s=config.timeout_s,
        )
        model = OpenAICompatibleModel(endpoint)
        identity = spec.identity
    return SampledModel(CachedModel(model, store, identity) if store else model, sampling.build())


def embedder(config: RunConfig) -> Embedder:
    """What embeds prompts, for retrieval by relevance."""
    embedding = config.models.embedding
    if isinstance(embedding, EmbeddedEmbeddingConfig):
        return StaticEmbedder()
    return OpenAICompatibleEmbedder(embedding.build())
