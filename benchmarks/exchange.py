"""Whether trajectories of one task should share their best prompts: ``python -m benchmarks.exchange [OPTIONS]``.

Four searches of a task, side by side, on the simulated models in this process: independent ones, and ones that look at
each other every few steps. Either the worse half takes the best prompt of all as its current one (``takes``), or all
have it in their records, where retrieval may find it (``knows``). Eight candidates a step, on the same 100 ``val``
examples for all, so that a prompt that is taken over costs nothing.

Three controls exchange nothing. ``returns``: at the same moments, each goes back to its own best prompt. And what the
budget of four searches buys where it is given to one: four times the candidates, or four times the steps.

Prints a Markdown table, in the mean over groups and domains, with standard errors of the paired differences from
independent searches: task model calls (a prompt that a sibling has asked about is in the cache), the best of the four
prompts on ``val``, which is what a user takes, and on ``test``, and the mean of the four. ``test`` is the prompt's true
quality, without noise.

The simulated task model is right about every example that it is right about with a worse prompt. ``--unpaired`` breaks
it, as for ``benchmarks.racing``: then the best on ``val`` is partly luck.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.racing import ACCEPTANCES, CANDIDATES, NUM_VAL, STEPS, Series, optimizer, task
from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.hashing import uniform
from benchmarks.simulated.landscape import quality
from gpo.data.task import Split
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt, edit_distance
from gpo.score import Score
from gpo.strategies.acceptance import Acceptance
from gpo.strategies.retrieval import ImportanceRetriever
from gpo.strategies.schedule import CosineSchedule
from gpo.trajectory import Candidate, Trajectory

SIBLINGS, GROUPS = 4, 10
EVERY = (1, 2, 4)

Exchange = Callable[[Sequence[Trajectory]], list[Trajectory]]
"""What the siblings are after they have looked at each other."""


def takes(siblings: Sequence[Trajectory]) -> list[Trajectory]:
    """The worse half goes on from the best prompt of all."""
    order = sorted(range(len(siblings)), key=lambda index: -siblings[index].best.score.mean)
    best, worse = siblings[order[0]].best, order[(len(order) + 1) // 2 :]
    return [_going_on_from(best, search) if index in worse else search for index, search in enumerate(siblings)]


def knows(siblings: Sequence[Trajectory]) -> list[Trajectory]:
    """All have the best prompt of all in their records."""
    best = max((search.best for search in siblings), key=lambda candidate: candidate.score.mean)
    return [_recorded(best, search) for search in siblings]


def returns(siblings: Sequence[Trajectory]) -> list[Trajectory]:
    """Each goes on from its own best prompt."""
    return [_going_on_from(search.best, search) for search in siblings]


EXCHANGES: dict[str, Exchange] = {"takes": takes, "knows": knows, "returns": returns}


def _recorded(found: Candidate, search: Trajectory) -> Trajectory:
    """With a prompt among the last step's candidates that another search has found."""
    if any(known.prompt == found.prompt for known in search.history):
        return search
    last = search.steps[-1]
    before = search.steps[-2].successor if len(search.steps) > 1 else search.initial
    taken = replace(found, edit_distance=edit_distance(before.prompt, found.prompt))
    return replace(search, steps=(*search.steps[:-1], replace(last, candidates=(*last.candidates, taken))))


def _going_on_from(found: Candidate, search: Trajectory) -> Trajectory:
    recorded = _recorded(found, search)
    successor = next(known for known in recorded.history if known.prompt == found.prompt)
    return replace(recorded, steps=(*recorded.steps[:-1], replace(recorded.steps[-1], successor=successor)))


class SimulatedEvaluator:
    """Scores as the simulated task model answers, without a conversation for each example.

    Args:
        unpaired: right as often, but about other examples with every prompt.
        asked: prompts that these siblings have asked about; what one has, the others find in the cache.
    """

    def __init__(self, domain: str, asked: set[Prompt], *, unpaired: bool) -> None:
        self._domain, self._asked, self._unpaired = domain, asked, unpaired

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        if indices is not None:
            raise ValueError("this scores every example, or none")
        self._asked.update(prompts)
        await asyncio.sleep(0)
        return [Evaluation(Score(tuple(self._values(prompt, split))), Usage()) for prompt in prompts]

    def _values(self, prompt: Prompt, split: Split) -> Iterator[float]:
        good = quality(prompt.text, self._domain)
        for index, example in enumerate(task(self._domain).examples[split]):
            if self._unpaired:
                difficulty = uniform(0, "unpaired", prompt.id, str(index))
            else:
                difficulty = uniform(0, "difficulty", example.input)
            yield float(difficulty < good)


@dataclass(frozen=True, slots=True)
class Group:
    """What four siblings came to: task calls, and percentages.

    Attributes:
        val, test: of the prompt that is best on ``val``.
        mean_val, mean_test: of the four searches' best prompts.
    """

    calls: float
    val: float
    test: float
    mean_val: float
    mean_test: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a budget is spent; ``every`` counts steps from one exchange to the next."""

    name: str
    exchange: Exchange | None = None
    every: int = 1
    siblings: int = SIBLINGS
    candidates: int = CANDIDATES
    steps: int = STEPS


INDEPENDENT = Plan("none")
UNDIVIDED = (
    Plan("one search, four times the candidates", siblings=1, candidates=SIBLINGS * CANDIDATES),
    Plan("one search, four times the steps", siblings=1, steps=SIBLINGS * STEPS),
)


async def group(
    plan: Plan, domain: str, first_seed: int, *, acceptance: Acceptance, by: str, unpaired: bool
) -> Group:  # fmt: skip
    """Siblings from beginning to end."""
    asked: set[Prompt] = set()
    evaluator = SimulatedEvaluator(domain, asked, unpaired=unpaired)
    optimizers = []
    for seed in range(first_seed, first_seed + plan.siblings):
        gpo = replace(
            optimizer(domain, seed, acceptance, unpaired=unpaired),
            evaluator=evaluator,
            num_candidates=plan.candidates,
            num_steps=plan.steps,
            schedule=CosineSchedule(initial=50, final=10, num_steps=plan.steps),
        )
        optimizers.append(gpo if by == "relevance" else replace(gpo, retriever=ImportanceRetriever()))
    siblings = [await gpo.start(task(domain).initial) for gpo in optimizers]
    for step in range(1, plan.steps + 1):
        siblings = [await _after_a_step(gpo, search) for gpo, search in zip(optimizers, siblings, strict=True)]
        if plan.exchange is not None and step % plan.every == 0 and step < plan.steps:
            siblings = plan.exchange(siblings)
    bests = [search.best for search in siblings]
    best = max(bests, key=lambda candidate: candidate.score.mean)

    def test(candidate: Candidate) -> float:
        return 100 * quality(candidate.prompt.text, domain)

    return Group(
        float(len(asked) * NUM_VAL),
        100 * best.score.mean,
        test(best),
        fmean(100 * candidate.score.mean for candidate in bests),
        fmean(map(test, bests)),
    )


async def _after_a_step(gpo: GPO, search: Trajectory) -> Trajectory:
    async with aclosing(gpo.run(search)) as states:
        async for state in states:
            if len(state.steps) > len(search.steps):
                return state
    raise AssertionError("a search that is not over takes a step")


def row(plan: Plan, groups: Sequence[Group], independent: Sequence[Group]) -> str:
    """One line of the table; independent searches have nothing to differ from."""

    def cell(of: Callable[[Group], float]) -> str:
        values = Series(tuple(map(of, groups)))
        if groups is independent:
            return f"{values.mean:.1f} ± {values.stderr:.1f}"
        difference = values - Series(tuple(map(of, independent)))
        return f"{values.mean:.1f} ({difference.mean:+.1f} ± {difference.stderr:.1f})"

    figures = [
        cell(lambda group: group.val),
        cell(lambda group: group.test),
        cell(lambda group: group.mean_val),
        cell(lambda group: group.mean_test),
    ]
    calls = fmean(group.calls for group in groups)
    return f"| {plan.name} | {plan.every if plan.exchange else ''} | {calls:,.0f} | {' | '.join(figures)} |"


async def report(options: argparse.Namespace) -> None:
    """Print the table."""
    print("| Exchange | Every … steps | Calls | Best of four: val | test | Mean of four: val | test |")
    print("|---|---:|---:|---:|---:|---:|---:|")

    async def groups(plan: Plan) -> list[Group]:
        acceptance = ACCEPTANCES[options.acceptance]
        return [
            await group(
                plan, domain, number * SIBLINGS, acceptance=acceptance, by=options.by, unpaired=options.unpaired
            )
            for domain in DOMAINS
            for number in range(options.groups)
        ]

    independent = await groups(INDEPENDENT)
    print(row(INDEPENDENT, independent, independent), flush=True)
    exchanges = [Plan(name, EXCHANGES[name], every) for name in options.exchange for every in options.every]
    for plan in [*exchanges, *UNDIVIDED]:
        print(row(plan, await groups(plan), independent), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exchange", description=__doc__)
    parser.add_argument("--exchange", nargs="+", choices=EXCHANGES, default=list(EXCHANGES), help="what is compared")
    parser.add_argument("--every", type=int, nargs="+", default=list(EVERY), help="steps from one exchange to the next")
    parser.add_argument("--groups", type=int, default=GROUPS, help="of four searches, in each domain")
    parser.add_argument("--acceptance", choices=ACCEPTANCES, default="best_of_step")
    parser.add_argument("--by", choices=("relevance", "importance"), default="relevance", help="what retrieval goes by")
    parser.add_argument("--unpaired", action="store_true", help="right about other examples with every prompt")
    asyncio.run(report(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
