"""The evaluator as a Ray Serve deployment: one request scores prompts, and the calls fan out inside the replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray import serve as ray_serve

from gpo.context import current_caller, log_about
from gpo.data.task import Split
from gpo.evaluation.evaluator import Answered, Evaluation, LocalEvaluator
from gpo.limits.work_limiter import WorkLimiter
from gpo.prompt import Prompt

MAX_ONGOING_REQUESTS = 10_000
"""Requests that a replica takes on at once. They wait inside for the model's own bound on concurrency, so that one
trajectory's calls fill the gaps that another leaves."""


HEALTH_CHECK_S = 2.0
"""How soon a replica is missed that died; Serve's own 10 s would be most of the time until another stands."""


class UnknownTask(LookupError):
    """The evaluator holds no task of this name."""


class EvaluatorReplica:
    """Scores prompts on any of the tasks it holds.

    Args:
        evaluators: one per task; they share their models, and with each one connection pool and bound on concurrency.
        examples_at_once: that it works on; more than its share of any endpoint's places.
        recording: called at the start of the process, to count what happens in it.
    """

    def __init__(
        self,
        evaluators: Sequence[LocalEvaluator],
        examples_at_once: int,
        recording: Callable[[], object] | None = None,
    ) -> None:
        if recording is not None:
            recording()
        self._evaluators = {evaluator.task.name: evaluator for evaluator in evaluators}
        self._room = WorkLimiter(examples_at_once)

    async def evaluate(
        self,
        task: str,
        prompts: Sequence[Prompt],
        split: Split,
        indices: Sequence[int] | None = None,
        asked_by: str = "",
        step: int | None = None,
    ) -> Sequence[Evaluation]:
        """One evaluation per prompt, in order; see ``gpo.evaluation.evaluator.Evaluator``.

        Args:
            asked_by: who is served in turn with others.
            step: for which it is asked, for the log.
        """
        current_caller.set(asked_by)  # each request is a task of its own
        log_about(task=task, trajectory=asked_by or None, step=step)
        evaluator = self._evaluator(task)
        num_examples = len(evaluator.task.examples[split] if indices is None else indices)
        async with self._room.entered(len(prompts) * num_examples):
            return await evaluator.evaluate(prompts, split, indices)

    async def answer(
        self,
        task: str,
        prompt: Prompt,
        split: Split,
        indices: Sequence[int],
        asked_by: str = "",
        step: int | None = None,
    ) -> Sequence[Answered]:
        """One answer per index, in order; see ``gpo.evaluation.evaluator.Answerer``."""
        current_caller.set(asked_by)
        log_about(task=task, trajectory=asked_by or None, step=step)
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
    evaluators: Sequence[LocalEvaluator],
    *,
    replicas: int,
    examples_at_once: int,
    cpus: float,
    drain_s: float,
    recording: Callable[[], object] | None = None,
) -> ray_serve.Application:
    """The application to hand to ``ray_serve.run``.

    Args:
        evaluators: one per task, over one model.
        replicas: how many processes score side by side.
        examples_at_once: that each works on.
        cpus: what Ray reserves for each.
        drain_s: seconds that a replica has to finish its requests when it is told to stop.
        recording: called at the start of each process.
    """
    deployment = Evaluator.options(
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        graceful_shutdown_timeout_s=drain_s,
        health_check_period_s=HEALTH_CHECK_S,
    )
    app: ray_serve.Application = deployment.bind(evaluators, examples_at_once, recording)
    return app
