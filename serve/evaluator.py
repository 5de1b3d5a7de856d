"""The evaluator as a Ray Serve deployment: one request scores prompts, and the replica makes the model calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ray import serve as ray_serve

from gpo.data.task import Split
from gpo.evaluation.evaluator import Answered, Evaluation, LocalEvaluator
from gpo.limits.work_limiter import WorkLimiter
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather
from gpo.runtime.context import current_caller, log_about
from gpo.scoring.candidates import Outcome, evaluated

MAX_ONGOING_REQUESTS = 10_000
"""Requests that a replica accepts at once. They wait inside for the model's limits, so that one trajectory's calls fill
the gaps that another one leaves."""

HEALTH_CHECK_S = 2.0
"""How soon a dead replica is noticed. Serve's default of 10 s would be most of the time that replacing it takes."""


class UnknownTask(LookupError):
    """The evaluator has no task with this name."""


class UnfitPrompt(ValueError):
    """The task model cannot be asked with this prompt."""


class EvaluatorReplica:
    """Scores prompts on any of its tasks.

    Args:
        evaluators: one per task; they share models, and so connections and limits.
        examples_at_once: bound on the examples in work; larger than the replica's share of any endpoint's slots.
        start_recording: called when the process starts, to record its events.
    """

    def __init__(
        self,
        evaluators: Sequence[LocalEvaluator],
        examples_at_once: int,
        start_recording: Callable[[], object] | None = None,
    ) -> None:
        if start_recording is not None:
            start_recording()
        self._evaluators = {evaluator.task.name: evaluator for evaluator in evaluators}
        self._work_limiter = WorkLimiter(examples_at_once)

    async def evaluate(self, task: str, prompts: Sequence[Prompt], split: Split) -> Sequence[Evaluation]:
        """One evaluation per prompt, in order; see ``gpo.evaluation.evaluator.Evaluator``.

        Raises:
            UnfitPrompt: a prompt lacks a placeholder of the task's template, or has another one.
        """
        self._begin(task, "", None)
        async with self._work(task, prompts, split, None) as evaluator:
            return await evaluator.evaluate(prompts, split)

    async def outcomes(
        self,
        task: str,
        prompts: Sequence[Prompt],
        split: Split,
        indices: Sequence[int] | None = None,
        caller: str = "",
        step: int | None = None,
    ) -> Sequence[Outcome]:
        """As ``evaluate``, but for a prompt that cannot be scored, the reason takes the place of its evaluation.

        Args:
            indices: evaluate only these examples of the split.
            caller: the trajectory that asks; callers take turns.
            step: the caller's step, for the log.
        """
        self._begin(task, caller, step)
        async with self._work(task, prompts, split, indices) as evaluator:
            return await gather(evaluated(evaluator, prompt, indices, split) for prompt in prompts)

    async def answer(
        self,
        task: str,
        prompt: Prompt,
        split: Split,
        indices: Sequence[int],
        caller: str = "",
        step: int | None = None,
    ) -> Sequence[Answered]:
        """One answer per index, in order; see ``gpo.evaluation.evaluator.Answerer``."""
        self._begin(task, caller, step)
        return await self._evaluator(task).answer(prompt, split, indices)

    async def sizes(self) -> dict[str, dict[Split, int]]:
        """Task → split → number of examples."""
        return {
            name: {split: len(examples) for split, examples in evaluator.task.examples.items()}
            for name, evaluator in self._evaluators.items()
        }

    @asynccontextmanager
    async def _work(
        self, task: str, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None
    ) -> AsyncIterator[LocalEvaluator]:
        """The evaluator of a task, once it is the turn of this work."""
        evaluator = self._evaluator(task)
        for prompt in prompts:
            problem = evaluator.task.prompt_problem(prompt)
            if problem is not None:
                raise UnfitPrompt(f"the prompt {problem}")
        num_examples = len(evaluator.task.examples[split] if indices is None else indices)
        async with self._work_limiter.entered(len(prompts) * num_examples):
            yield evaluator

    def _begin(self, task: str, caller: str, step: int | None) -> None:
        # Serve runs each request as an asyncio task with its own context.
        current_caller.set(caller)
        log_about(task=task, trajectory=caller or None, step=step)

    def _evaluator(self, task: str) -> LocalEvaluator:
        try:
            return self._evaluators[task]
        except KeyError:
            raise UnknownTask(task, sorted(self._evaluators)) from None


# `Any`: Serve's decorators erase the class's type; `serve.client` restores it.
Evaluator: Any = ray_serve.deployment(EvaluatorReplica, name="evaluator", max_ongoing_requests=MAX_ONGOING_REQUESTS)


def evaluator_app(
    evaluators: Sequence[LocalEvaluator],
    *,
    replicas: int,
    examples_at_once: int,
    cpus: float,
    drain_s: float,
    start_recording: Callable[[], object] | None = None,
) -> ray_serve.Application:
    """The application for ``ray_serve.run``.

    Args:
        evaluators: one per task.
        replicas: number of processes.
        examples_at_once: bound on the examples in work, per process.
        cpus: CPUs that Ray reserves, per process.
        drain_s: seconds that a replica has to finish its requests when it stops.
        start_recording: called when each process starts.
    """
    deployment = Evaluator.options(
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        graceful_shutdown_timeout_s=drain_s,
        health_check_period_s=HEALTH_CHECK_S,
    )
    app: ray_serve.Application = deployment.bind(evaluators, examples_at_once, start_recording)
    return app
