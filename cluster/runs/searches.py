"""From a configuration to the run's searches: one optimizer per task and seed, ready to be sent to an actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from actors.search import Search, SearchKey
from cluster.config import RunConfig
from cluster.session.models import Access, SampledModel, chat_model, embedder
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import Answerer, Evaluator
from gpo.models.protocol import Embedder
from gpo.optimizer import GPO
from gpo.strategies.batches import TrainBatches
from gpo.strategies.first_prompts import GivenPrompts
from gpo.strategies.proposer import Proposer, SamplingProposer
from gpo.strategies.rules import search_rules


class TaskEvaluator(Evaluator, Answerer, Protocol):
    """The evaluator of a task, as a search uses it."""


def build_searches(
    config: RunConfig, tasks: Sequence[Task], evaluators: Mapping[str, TaskEvaluator], access: Access
) -> list[Search]:
    """One search per task and seed.

    Args:
        evaluators: task name → evaluator, as the actors reach it.
    """
    model, embedding = chat_model(config, "optimizer", access), embedder(config, access)
    traced = config.tracing.build(run=access.budget_name.removeprefix("gpo-"))
    return [
        Search(
            key, task.initial, traced(build_gpo(config, task, key.seed, evaluators[task.name], model, embedding), key)
        )
        for task in tasks
        for key in (SearchKey(task.name, seed) for seed in config.run.seeds)
    ]


def build_gpo(
    config: RunConfig, task: Task, seed: int, evaluator: TaskEvaluator, model: SampledModel, embedding: Embedder
) -> GPO:
    """The optimizer of one task and seed, built from the configuration's strategies.

    Args:
        model: the optimizer model.
    """
    settings, train = config.optimizer, task.examples[Split.TRAIN]
    direction = settings.direction
    proposer = SamplingProposer(
        model=model.model,
        sampling=model.sampling,
        meta_prompt=config.meta_prompt.build(settings.refinement, direction.form),
        position=task.answer_format.position,
        goal=task.goal,
        rules=search_rules(task),
        max_samples=settings.refinement.max_samples if settings.refinement.enforce else 1,
    )
    return GPO(
        retriever=direction.build_retriever(embedding),
        reflector=direction.build_reflector(model.model, model.sampling, evaluator, train),
        summarizer=direction.build_summarizer(model.model, model.sampling),
        schedule=settings.schedule.build(config.num_updates(task)),
        proposer=proposer,
        evaluator=evaluator,
        acceptance=settings.acceptance.build(),
        num_steps=config.num_steps(task),
        num_candidates=settings.candidates,
        num_neighbours=direction.num_neighbours,
        train=train,
        batches=TrainBatches(len(train), settings.batch_size, seed),
        num_exemplars=config.meta_prompt.exemplars,
        seed=seed,
        scoring=config.evaluation.scoring.build(task.examples[Split.VAL], config.evaluation.max_unscored, seed),
        stopping=config.stop.build(),
        first=_first(config, task, proposer),
        parts=task.parts,
    )


def _first(config: RunConfig, task: Task, proposer: SamplingProposer) -> Proposer | None:
    """What writes the prompts of the first step, if they are not made from the initial prompt."""
    if task.starts_from_goal:
        return replace(proposer, meta_prompt=config.meta_prompt.build_first(), max_samples=1)
    return GivenPrompts(task.given) if task.given else None
