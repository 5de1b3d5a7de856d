"""Two prompts of one program, together or one after the other: ``python -m benchmarks.power.joint [OPTIONS]``.

An example is answered right if both stages of a simulated pipeline get it right. Each stage has its own prompt, and the
words matter differently in each. With the initial prompt, a stage gets 70 % of the examples right, so neither prompt
alone raises the score above 0.70. Prints a Markdown table of the true score after so many evaluated examples.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.tables import write_between
from benchmarks.power.searches import METHODS, WithinBudget, most_answers_of_step
from benchmarks.power.structures import STRUCTURES, StructuredTask
from benchmarks.simulated.domains import DOMAINS, make_task
from benchmarks.simulated.models import SimulatedEmbedder, SimulatedModel
from cluster.runs.searches import build_gpo
from cluster.session.models import SampledModel
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.models.protocol import Sampling, Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt, joined_parts, parts_of
from gpo.score import Score
from gpo.strategies.proposer import Proposals, Proposer
from gpo.trajectory import Candidate, Direction

NAMES = ("plan", "answer")
ALONE = 0.70
"""Share of the examples that a stage gets right with its initial prompt."""
GOAL = 0.90
BUDGETS = (1_000, 1_500, 2_000, 3_000)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Two stages in a row; the seed decides what the words are worth, the difficulties and the noise."""

    seed: int

    def stage(self, name: str) -> StructuredTask:
        """A stage as a task of its own, in another domain than the other one."""
        number = 2 * self.seed + NAMES.index(name)
        plain = StructuredTask(STRUCTURES["additive"], number)
        quality = plain.true_score(DOMAINS[plain.domain].initial)
        return StructuredTask(replace(plain.structure, lowest=(ALONE - quality) / (1 - quality)), number)

    @property
    def initial(self) -> dict[str, str]:
        """The prompts that a search starts from."""
        return {name: DOMAINS[self.stage(name).domain].initial for name in NAMES}

    def true_score(self, prompts: Mapping[str, str]) -> float:
        """The expected share of new examples that both stages get right."""
        plan, answer = (self.stage(name).true_score(prompts[name]) for name in NAMES)
        return plan * answer

    def answers(self, prompts: Mapping[str, str]) -> tuple[float, ...]:
        """The scores on all of ``val``."""
        plan, answer = (self.stage(name).answers(prompts[name]) for name in NAMES)
        return tuple(one * other for one, other in zip(plan, answer, strict=True))


@dataclass
class _Evaluator:
    """Counts the examples that the pipeline answers."""

    pipeline: Pipeline
    fixed: Mapping[str, str]
    calls: int = field(default=0, init=False)
    known: dict[str, tuple[float, ...]] = field(default_factory=dict, init=False)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        found = []
        for prompt in prompts:
            if prompt.text not in self.known:
                self.known[prompt.text] = self.pipeline.answers({**self.fixed, **parts_of(prompt.text)})
            values = self.known[prompt.text]
            chosen = range(len(values)) if indices is None else indices
            self.calls += len(chosen)
            found.append(Evaluation(Score(tuple(values[index] for index in chosen)), Usage(requests=len(chosen))))
        await asyncio.sleep(0)
        return found

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        raise NotImplementedError("no method here reflects on answers")


@dataclass(frozen=True, slots=True)
class _OnePart:
    """All candidates of a step rewrite the same part alone, each part in turn."""

    proposer: Proposer

    async def propose(self, current: Candidate, direction: Direction, **settings: Any) -> Proposals:
        return await self.proposer.propose(current, replace(direction, others=()), **settings)


async def _searched(
    pipeline: Pipeline, parts: Sequence[str], fixed: Mapping[str, str], budget: int, *, in_turn: bool = False
) -> tuple[dict[str, str], int]:
    """The best prompts within a budget, and what they cost."""
    method, evaluator = METHODS["efficient"], _Evaluator(pipeline, fixed)
    num_val = STRUCTURES["additive"].num_val
    config = method.config(num_val, budget)
    task = _described(pipeline, num_val)
    gpo = build_gpo(
        config,
        task,
        pipeline.seed,
        evaluator,
        SampledModel(SimulatedModel(), Sampling(temperature=1.0)),
        SimulatedEmbedder(),
    )
    step = method.usual * most_answers_of_step(config, num_val)
    gpo = replace(gpo, stopping=WithinBudget(budget=budget, step=step, scoring=gpo.scoring))
    gpo = _with_parts(gpo, parts, in_turn=in_turn)
    trajectory = await gpo.start(Prompt(joined_parts({name: fixed[name] for name in parts})))
    best, calls = trajectory.best, evaluator.calls
    async with aclosing(gpo.run(trajectory)) as states:
        async for state in states:
            if evaluator.calls > budget:
                break
            best, calls = state.best, evaluator.calls
    return {**fixed, **parts_of(best.prompt.text)}, calls


def _with_parts(gpo: GPO, parts: Sequence[str], *, in_turn: bool) -> GPO:
    return replace(gpo, parts=tuple(parts), proposer=_OnePart(gpo.proposer) if in_turn else gpo.proposer)


def _described(pipeline: Pipeline, num_val: int) -> Task:
    """What the optimizer model is shown: examples of the first stage's domain."""
    task = make_task(pipeline.stage("plan").domain, "power/joint", {"train": 6, "val": -(-num_val // 4)})
    return replace(task, examples={**task.examples, Split.VAL: task.examples[Split.VAL][:num_val]})


async def _together(pipeline: Pipeline, budget: int, *, in_turn: bool = False) -> tuple[dict[str, str], int]:
    return await _searched(pipeline, NAMES, pipeline.initial, budget, in_turn=in_turn)


async def _one_after_the_other(pipeline: Pipeline, budget: int) -> tuple[dict[str, str], int]:
    prompts, calls = pipeline.initial, 0
    for number, name in enumerate(NAMES, start=1):
        prompts, spent = await _searched(pipeline, (name,), prompts, number * budget // 2 - calls)
        calls += spent
    return prompts, calls


async def _only(name: str, pipeline: Pipeline, budget: int) -> tuple[dict[str, str], int]:
    return await _searched(pipeline, (name,), pipeline.initial, budget)


Method = Callable[[Pipeline, int], Coroutine[Any, Any, tuple[dict[str, str], int]]]
METHODS_OF_BOTH: Mapping[str, Method] = {
    "together, both in each candidate": _together,
    "together, a part each step in turn": partial(_together, in_turn=True),
    "one after the other": _one_after_the_other,
}
METHODS_OF_ONE: Mapping[str, Method] = {
    "only `plan`": partial(_only, "plan"),
    "only `answer`": partial(_only, "answer"),
}
"""They are tried with the largest budget alone."""


def true_score(method: str, budget: int, seed: int) -> float:
    """The true score of the prompts that a method finds within a budget of evaluated examples."""
    pipeline = Pipeline(seed)
    search = {**METHODS_OF_BOTH, **METHODS_OF_ONE}[method]
    prompts, calls = asyncio.run(search(pipeline, budget))
    if calls > budget:
        raise RuntimeError(f"{method} evaluated {calls} examples, more than {budget}")
    return pipeline.true_score(prompts)


def table(scores: Mapping[tuple[str, int], Sequence[float]], budgets: Sequence[int]) -> str:
    """Mean and standard error of each method and budget, and in how many searches the goal was reached."""
    lines = [
        f"| | {' | '.join(f'{budget:,}' for budget in budgets)} |",
        f"|---|{'---:|' * len(budgets)}",
    ]
    for method in (*METHODS_OF_BOTH, *METHODS_OF_ONE):
        cells = []
        for budget in budgets:
            values = scores.get((method, budget))
            if values is None:
                cells.append("")
                continue
            error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
            cells.append(f"{fmean(values):.3f} ± {error:.3f} ({sum(value >= GOAL for value in values)})")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power.joint", description=__doc__)
    add = parser.add_argument
    add("--budgets", type=int, nargs="+", default=BUDGETS, metavar="EXAMPLES")
    add("--seeds", type=int, default=10)
    add("--processes", type=int, default=2)
    add("--write", action="store_true", help="write the table into benchmarks/README.md")
    settings = parser.parse_args(arguments)
    jobs = [(method, budget) for budget in settings.budgets for method in METHODS_OF_BOTH]
    jobs += [(method, max(settings.budgets)) for method in METHODS_OF_ONE]
    with ProcessPoolExecutor(settings.processes) as pool:
        waiting = {job: [pool.submit(true_score, *job, seed) for seed in range(settings.seeds)] for job in jobs}
        scores = {}
        for job, futures in waiting.items():
            scores[job] = [one.result() for one in futures]
            print(*job, " ".join(f"{score:.3f}" for score in scores[job]), file=sys.stderr, flush=True)
    text = table(scores, settings.budgets)
    print(text)
    if settings.write:
        write_between(Path(ROOT) / "benchmarks" / "README.md", "joint", text)


if __name__ == "__main__":
    main()
