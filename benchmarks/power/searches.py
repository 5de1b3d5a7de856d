"""Our own searches, built from the configuration as a user's run is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, count, takewhile
from typing import Any, Protocol

from benchmarks.power.results import Found
from benchmarks.power.structures import NUM_LABELS, Structure, StructuredTask
from benchmarks.simulated.domains import DOMAINS, make_task
from benchmarks.simulated.models import SimulatedEmbedder, SimulatedModel
from cluster.config import RunConfig
from cluster.runs.searches import TaskEvaluator, build_gpo
from cluster.session.models import SampledModel
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.models.protocol import Sampling, Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.scoring.candidates import CandidateScoring
from gpo.strategies.stopping import StoppingRule
from gpo.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Method:
    """A way to search.

    Attributes:
        options: of the configuration.
        fewest: share of the largest possible number of answers that a cheap search needs; decides the number of steps.
        usual: share of the largest possible number of answers that a step needs; decides when a search stops.
    """

    options: Mapping[str, Any]
    fewest: float
    usual: float

    def config(self, num_val: int, budget: int) -> RunConfig:
        """The configuration with as many steps as the budget may allow; at least 1."""
        config = self.of_steps(1)
        scoring, candidates = config.evaluation.scoring, config.optimizer.candidates
        fitting = takewhile(
            lambda steps: self.fewest * scoring.most_answers(num_val, steps, candidates) <= budget, count(1)
        )
        return self.of_steps(max(fitting, default=1))

    def of_steps(self, num_steps: int) -> RunConfig:
        """The configuration with so many steps."""
        return RunConfig.model_validate(
            {
                **self.options,
                "optimizer": {**self.options.get("optimizer", {}), "steps": num_steps},
                # No endpoint is called and no file is read.
                "models": {"task": {"model": "task-model"}, "optimizer": {"model": "optimizer-model"}},
                "tasks": [
                    {
                        "name": "task",
                        "data": {split: f"{split}.jsonl" for split in ("train", "val", "test")},
                        "fields": {"input": "text", "target": "label"},
                        "prompt": "unused",
                        "answer": {"kind": "label"},
                    }
                ],
            }
        )


METHODS: Mapping[str, Method] = {
    "efficient": Method({"preset": "efficient"}, 0.75, 0.9),
    "racing": Method(
        {
            "preset": "paper",
            "evaluation": {"scoring": {"kind": "racing"}},
            "optimizer": {
                "acceptance": {"kind": "within_error"},
                "direction": {"trajectory": {"kind": "retrieval", "by": "importance"}},
            },
        },
        0.45,
        0.5,
    ),
    "paper": Method({"preset": "paper"}, 1.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class WithinBudget(StoppingRule):
    """Ends a search when the budget does not allow another step and the confirmation of the best prompt.

    Attributes:
        budget: task model calls.
        step: about the largest number of calls of a step.
        scoring: how the candidates are scored.
    """

    budget: int
    step: float
    scoring: CandidateScoring

    def reason(self, trajectory: Trajectory) -> str | None:
        unconfirmed = sum(len(one.indices) for one in self.scoring.unconfirmed(trajectory))
        needed = trajectory.spending.task.requests + self.step + unconfirmed
        return f"{needed:.0f} calls exceed the budget" if needed > self.budget else None


def search(method: str, structure: Structure, budget: int, seed: int) -> Found:
    """Run a search; if it costs more than the budget, the last state within the budget counts."""
    task = StructuredTask(structure, seed)
    return asyncio.run(best_within(METHODS[method], task, budget, StructuredEvaluator(task)))


def finished_search(method: Method, task: StructuredTask, steps: int) -> Trajectory:
    """A search with so many steps, and its best prompt confirmed."""

    async def run() -> Trajectory:
        gpo = _built(method.of_steps(steps), task, StructuredEvaluator(task))
        trajectory = await gpo.start(_described(task.domain, task.structure.num_val).initial)
        async with aclosing(gpo.run(trajectory)) as states:
            async for state in states:
                trajectory = state
        return trajectory

    return asyncio.run(run())


class CountingEvaluator(TaskEvaluator, Protocol):
    """An evaluator that counts the answered examples."""

    calls: int


def _built(config: RunConfig, task: StructuredTask, evaluator: CountingEvaluator) -> GPO:
    model = SampledModel(SimulatedModel(), Sampling(temperature=1.0))
    described = _described(task.domain, task.structure.num_val)
    return build_gpo(config, described, task.seed, evaluator, model, SimulatedEmbedder())


async def best_within(method: Method, task: StructuredTask, budget: int, evaluator: CountingEvaluator) -> Found:
    """Search; if it costs more than the budget, the last state within the budget counts."""
    num_val = task.structure.num_val
    config = method.config(num_val, budget)
    gpo = _built(config, task, evaluator)
    rule = WithinBudget(budget=budget, step=method.usual * most_answers_of_step(config, num_val), scoring=gpo.scoring)
    gpo = replace(gpo, stopping=rule)
    trajectory = await gpo.start(_described(task.domain, num_val).initial)
    best, calls = trajectory.best.prompt.text, evaluator.calls
    async with aclosing(gpo.run(trajectory)) as states:
        async for state in states:
            if evaluator.calls > budget:
                break
            best, calls = state.best.prompt.text, evaluator.calls
    return Found(best, calls)


def most_answers_of_step(config: RunConfig, num_val: int) -> int:
    """The largest number of answers that one more step needs."""
    scoring, candidates = config.evaluation.scoring, config.optimizer.candidates
    return scoring.most_answers(num_val, 2, candidates) - scoring.most_answers(num_val, 1, candidates)


@cache
def _described(domain: str, num_val: int) -> Task:
    """The task as the optimizer model sees it, with labels in the order that a structure has."""
    task = make_task(domain, f"power/{domain}", {"train": 6, "val": -(-num_val // NUM_LABELS)})
    by_label = [[one for one in task.examples[Split.VAL] if one.target == label] for label in DOMAINS[domain].labels]
    in_turn = tuple(chain.from_iterable(zip(*by_label, strict=True)))
    return replace(task, examples={**task.examples, Split.VAL: in_turn[:num_val]})


@dataclass
class StructuredEvaluator:
    """An evaluator whose answers follow the task's structure. ``calls`` counts the answered examples."""

    task: StructuredTask
    calls: int = field(default=0, init=False)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        chosen = range(self.task.structure.num_val) if indices is None else indices
        self.calls += len(prompts) * len(chosen)
        usage = Usage(requests=len(chosen))
        # Real models yield to the event loop as well.
        await asyncio.sleep(0)
        values = [self.task.answers(prompt.text) for prompt in prompts]
        return [Evaluation(Score(tuple(known[index] for index in chosen)), usage) for known in values]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        raise NotImplementedError("no method here reflects on answers")
