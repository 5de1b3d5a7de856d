"""From a checked configuration to the objects that do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.search import Search, SearchKey
from cluster.config import RunConfig
from cluster.config.models import ChatEndpointConfig, EmbeddedChatConfig, EmbeddedEmbeddingConfig
from gpo.evaluation import Evaluator, LocalEvaluator
from gpo.models import ChatModel, Embedder, Sampling
from gpo.openai_compatible import Endpoint, OpenAICompatibleEmbedder, OpenAICompatibleModel
from gpo.optimizer import GPO
from gpo.proposer import SamplingProposer
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
    models = (config.models.task, config.models.optimizer)
    return list(dict.fromkeys(embedded_spec(model) for model in models if isinstance(model, EmbeddedChatConfig)))


def build_tasks(config: RunConfig) -> list[Task]:
    """Load and check every task.

    Raises:
        ConfigError: the first task whose data cannot be used.
    """
    sizes = config.evaluation
    return [task.build(f"tasks[{index}]", sizes.val_size, sizes.test_size) for index, task in enumerate(config.tasks)]


def build_evaluators(config: RunConfig, tasks: Sequence[Task], urls: EmbeddedUrls) -> list[LocalEvaluator]:
    """What scores prompts, one per task, over one task model."""
    task_model = _chat_model(config.models.task, urls, share=config.cluster.evaluator_replicas)
    return [
        LocalEvaluator(task, task_model.model, task_model.sampling, config.evaluation.max_unscored) for task in tasks
    ]


def build_searches(
    config: RunConfig, tasks: Sequence[Task], evaluators: Mapping[str, Evaluator], urls: EmbeddedUrls
) -> list[Search]:
    """One search per task and seed.

    Args:
        evaluators: task name → evaluator, as the searches shall reach it.
    """
    optimizer_model = _chat_model(config.models.optimizer, urls, share=config.num_actors)
    embedder = _embedder(config)
    return [
        Search(
            SearchKey(task.name, seed),
            task.initial,
            _gpo(config, task, seed, evaluators[task.name], optimizer_model, embedder),
        )
        for task in tasks
        for seed in config.run.seeds
    ]


def _gpo(
    config: RunConfig, task: Task, seed: int, evaluator: Evaluator, model: SampledModel, embedder: Embedder
) -> GPO:
    settings = config.optimizer
    return GPO(
        retriever=settings.direction.trajectory.build(embedder),
        schedule=settings.schedule.build(settings.steps),
        proposer=SamplingProposer(
            model=model.model,
            sampling=model.sampling,
            meta_prompt=config.meta_prompt.build(settings.refinement.build()),
            exemplars=task.examples[Split.TRAIN],
            num_exemplars=config.meta_prompt.exemplars,
            position=task.answer_format.position,
            max_samples=settings.refinement.max_samples if settings.refinement.enforce else 1,
        ),
        evaluator=evaluator,
        acceptance=settings.acceptance.build(),
        num_steps=settings.steps,
        num_candidates=settings.candidates,
        num_neighbours=settings.direction.trajectory.k,
        seed=seed,
    )


def _chat_model(config: ChatEndpointConfig | EmbeddedChatConfig, urls: EmbeddedUrls, *, share: int) -> SampledModel:
    if isinstance(config, ChatEndpointConfig):
        model = OpenAICompatibleModel(config.build(share), config.completion_limit)
        return SampledModel(model, config.sampling.build())
    spec = embedded_spec(config)
    endpoint = Endpoint(
        base_url=urls[spec],
        model=spec.name,
        # Its server queues what it cannot decode at once; more than that would only wait there.
        max_concurrency=config.parallel,
        timeout_s=config.timeout_s,
    )
    return SampledModel(OpenAICompatibleModel(endpoint), config.bounded_sampling.build())


def _embedder(config: RunConfig) -> Embedder:
    embedding = config.models.embedding
    if isinstance(embedding, EmbeddedEmbeddingConfig):
        return StaticEmbedder()
    return OpenAICompatibleEmbedder(embedding.build())
