"""The evaluator as a Ray Serve deployment: one request scores prompts, and the calls fan out inside the replica."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import serve as ray_serve

from gpo.evaluation import Answered, Evaluation, LocalEvaluator
from gpo.limits.caller import caller
from gpo.limits.room import Room
from gpo.prompt import Prompt
from gpo.tasks import Split

MAX_ONGOING_REQUESTS = 10_000
"""Requests that a replica takes on at once. They wait inside for the model's own bound on concurrency, so that one
trajectory's calls fill the gaps that another leaves."""

EXAMPLES_AT_ONCE = 1000
"""Examples that a replica works on at once: more than its share of any endpoint's places."""


HEALTH_CHECK_S = 2.0
"""How soon a replica is missed that died; Serve's own 10 s would be most of the time until another stands."""


class UnknownTask(LookupError):
    """The evaluator holds no task of this name."""


class EvaluatorReplica:
    """Scores prompts on any of the tasks it holds.

    Args:
        evaluators: one per task; they share their models, and with each one connection pool and bound on concurrency.
    """

    def __init__(self, evaluators: Sequence[LocalEvaluator]) -> None:
        self._evaluators = {evaluator.task.name: evaluator for evaluator in evaluators}
        self._room = Room(EXAMPLES_AT_ONCE)

    async def evaluate(
        self,
        task: str,
        prompts: Sequence[Prompt],
        split: Split,
        indices: Sequence[int] | None = None,
        asked_by: str = "",
    ) -> Sequence[Evaluation]:
        """One evaluation per prompt, in order; see ``gpo.evaluation.Evaluator``.

        Args:
            asked_by: who is served in turn with others.
        """
        caller.set(asked_by)  # each request is a task of its own
        evaluator = self._evaluator(task)
        num_examples = len(evaluator.task.examples[split] if indices is None else indices)
        async with self._room.entered(len(prompts) * num_examples):
            return await evaluator.evaluate(prompts, split, indices)

    async def answer(
        self, task: str, prompt: Prompt, split: Split, indices: Sequence[int], asked_by: str = ""
    ) -> Sequence[Answered]:
        """One answer per index, in order; see ``gpo.evaluation.Answerer``."""
        caller.set(asked_by)
        return await self._evaluator(task).answer(prompt, split, indices)

    async def sizes(self) -> dict[str, dict[Split, int]]:
        """Task → split → number of examples."""
        return {
            name: {split: len(examples) for split, examples in evaluator.task.examples.items()}
            for name, evaluator in self._evaluators.items()
        }

    def _evaluator(self, task: str) -> LocalEvaluator:
        try:
            return self._evaluators[task]
        except KeyError:
            raise UnknownTask(task, sorted(self._evaluators)) from None


# `Any`: Serve's decorators erase the class's type; `serve.client` gives it back.
Evaluator: Any = ray_serve.deployment(EvaluatorReplica, name="evaluator", max_ongoing_requests=MAX_ONGOING_REQUESTS)


def evaluator_app(
    evaluators: Sequence[LocalEvaluator], *, replicas: int, cpus: float, drain_s: float
) -> ray_serve.Application:
    """The application to hand to ``ray_serve.run``.

    Args:
        evaluators: one per task, over one model.
        replicas: how many processes score side by side.
        cpus: what Ray reserves for each.
        drain_s: seconds that a replica has to finish its requests when it is told to stop.
    """
    deployment = Evaluator.options(
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        graceful_shutdown_timeout_s=drain_s,
        health_check_period_s=HEALTH_CHECK_S,
    )
    app: ray_serve.Application = deployment.bind(evaluators)
    return app
