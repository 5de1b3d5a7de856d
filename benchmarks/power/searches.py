"""Our own searches, built from the configuration as a user's run is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from benchmarks.power.results import Found
from benchmarks.power.structures import NUM_LABELS, Structure, StructuredTask
from benchmarks.simulated.domains import make_task
from benchmarks.simulated.models import SimulatedEmbedder, SimulatedModel
from cluster.config import RunConfig
from cluster.runs.searches import build_gpo
from cluster.session.models import SampledModel
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.models.protocol import Sampling, Usage
from gpo.prompt import Prompt
from gpo.score import Score

_NUM_CANDIDATES = 8
"""The default of ``optimizer.candidates``."""
_RACED = 0.55
"""The share of the answers that racing needs, about."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to search.

    Attributes:
        options: of the configuration.
        num_steps: size of ``val`` and budget → the number of steps that cost about as many task calls as the budget.
    """

    options: Mapping[str, Any]
    num_steps: Callable[[int, int], int]


METHODS: Mapping[str, Method] = {
    # 40 calls for the initial prompt, 70 a step, and the rest of ``val`` for the best prompt or two.
    "efficient": Method(
        {"preset": "efficient"},
        lambda num_val, budget: round((budget - min(40, num_val) - max(0, num_val - 25)) / 70),
    ),
    "racing": Method(
        {
            "preset": "paper",
            "evaluation": {"scoring": {"kind": "racing"}},
            "optimizer": {
                "acceptance": {"kind": "within_error"},
                "direction": {"trajectory": {"kind": "retrieval", "by": "importance"}},
            },
        },
        lambda num_val, budget: round((budget - num_val) / (_NUM_CANDIDATES * num_val * _RACED)),
    ),
    "paper": Method({"preset": "paper"}, lambda num_val, budget: (budget - num_val) // (_NUM_CANDIDATES * num_val)),
}


def search(method: str, structure: Structure, budget: int, seed: int) -> Found:
    """Run a search; if it costs more than the budget, the last state within the budget counts."""
    return asyncio.run(_search(METHODS[method], StructuredTask(structure, seed), budget))


async def _search(method: Method, task: StructuredTask, budget: int) -> Found:
    num_val, seed = task.structure.num_val, task.seed
    evaluator, described = StructuredEvaluator(task), _described(task.domain, num_val)
    config = RunConfig.model_validate(_configuration(method, max(1, method.num_steps(num_val, budget))))
    model = SampledModel(SimulatedModel(), Sampling(temperature=1.0))
    gpo = build_gpo(config, described, seed, evaluator, model, SimulatedEmbedder())
    trajectory = await gpo.start(described.initial)
    best, calls = trajectory.best.prompt.text, evaluator.calls
    async with aclosing(gpo.run(trajectory)) as states:
        async for state in states:
            if evaluator.calls > budget:
                break
            best, calls = state.best.prompt.text, evaluator.calls
    return Found(best, calls)


def _configuration(method: Method, num_steps: int) -> dict[str, Any]:
    options = dict(method.options)
    return {
        **options,
        "optimizer": {**options.get("optimizer", {}), "steps": num_steps},
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


@cache
def _described(domain: str, num_val: int) -> Task:
    """The task as the optimizer model sees it: its initial prompt and some ``train`` examples."""
    task = make_task(domain, f"power/{domain}", {"train": 6, "val": -(-num_val // NUM_LABELS)})
    return replace(task, examples={**task.examples, Split.VAL: task.examples[Split.VAL][:num_val]})


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
