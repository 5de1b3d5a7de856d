"""What racing saves and what it costs: ``python -m benchmarks.racing [OPTIONS]``.

Runs searches on the simulated models in this process, with full scoring and with racing: eight candidates a step on 100
``val`` examples. Prints a Markdown table of task model calls and of the best prompt's score on ``val``, as means over
seeds with standard errors. The searches of a row share task, seed and models.

With a better prompt, the simulated task model answers every example right that it answers right with a worse one. That
favours paired tests; with ``--unpaired``, each prompt is right about other examples.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from statistics import fmean, stdev

from benchmarks.simulated.domains import DOMAINS, make_task
from benchmarks.simulated.hashing import uniform
from benchmarks.simulated.landscape import quality
from benchmarks.simulated.models import SimulatedEmbedder, SimulatedModel
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import Evaluation, Evaluator, LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.evaluation.metrics import LabelScorer
from gpo.models.protocol import Sampling, Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.scoring.candidates import FullScoring
from gpo.scoring.racing import Racing
from gpo.strategies.acceptance import Acceptance, BestOfStep, StrictImprovement, WithinError
from gpo.strategies.batches import TrainBatches
from gpo.strategies.meta_prompt import FullMetaPrompt
from gpo.strategies.proposer import SamplingProposer
from gpo.strategies.reflection import NoReflection
from gpo.strategies.retrieval import RelevanceRetriever
from gpo.strategies.schedule import CosineSchedule
from gpo.strategies.summary import NoSummary
from gpo.trajectory import Trajectory

STEPS, CANDIDATES, NEIGHBOURS, SEEDS = 12, 8, 3, 10
PER_LABEL = {"train": 6, "val": 25}
"""Number of examples of each of the four labels."""
NUM_VAL = 4 * PER_LABEL["val"]
ACCEPTANCES: Mapping[str, Acceptance] = {
    "best_of_step": BestOfStep(),
    "strict_improvement": StrictImprovement(),
    "within_error": WithinError(),
}
MODEL = SimulatedModel()


class _Unpaired:
    """An evaluator whose share of right answers is the prompt's quality, on other examples for each prompt."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        chosen = range(NUM_VAL) if indices is None else indices
        await asyncio.sleep(0)
        return [
            Evaluation(
                Score(
                    tuple(
                        float(uniform(0, "unpaired", prompt.id, str(index)) < quality(prompt.text, self._domain))
                        for index in chosen
                    )
                ),
                Usage(requests=len(chosen)),
            )
            for prompt in prompts
        ]


@cache
def task(domain: str) -> Task:
    """A task of the domain with 100 ``val`` examples."""
    return make_task(domain, f"racing/{domain}", PER_LABEL)


def optimizer(domain: str, seed: int, acceptance: Acceptance, *, unpaired: bool) -> GPO:
    """GPO with its defaults and full scoring."""
    train, scorer = task(domain).examples[Split.TRAIN], LabelScorer(DOMAINS[domain].labels)
    paired = LocalEvaluator(task(domain), MODEL, Sampling(temperature=0), RuleGrader(scorer))
    evaluator: Evaluator = _Unpaired(domain) if unpaired else paired
    return GPO(
        retriever=RelevanceRetriever(SimulatedEmbedder()),
        reflector=NoReflection(),
        summarizer=NoSummary(),
        schedule=CosineSchedule(initial=50, final=10, num_steps=STEPS),
        proposer=SamplingProposer(
            model=MODEL,
            sampling=Sampling(temperature=1.0),
            meta_prompt=FullMetaPrompt(),
            position=task(domain).answer_format.position,
        ),
        evaluator=evaluator,
        acceptance=acceptance,
        num_steps=STEPS,
        num_candidates=CANDIDATES,
        num_neighbours=NEIGHBOURS,
        train=train,
        batches=TrainBatches(len(train), batch_size=8, seed=seed),
        num_exemplars=3,
        seed=seed,
        scoring=FullScoring(),
    )


async def search(gpo: GPO, domain: str) -> Trajectory:
    """Run a whole search."""
    trajectory = await gpo.start(task(domain).initial)
    async for later in gpo.run(trajectory):
        trajectory = later
    return trajectory


@dataclass(frozen=True, slots=True)
class Series:
    """One value per seed."""

    values: tuple[float, ...]

    def __sub__(self, other: Series) -> Series:
        return Series(tuple(mine - theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return fmean(self.values)

    @property
    def stderr(self) -> float:
        """The standard error of the mean."""
        return stdev(self.values) / sqrt(len(self.values))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Task calls of the searches, and the best prompts' scores on ``val`` as percentages."""

    calls: Series
    val: Series

    @classmethod
    def of(cls, searches: Sequence[Trajectory]) -> Outcome:
        """Collect the figures of finished searches."""
        return cls(
            Series(tuple(float(search.spending.task.requests) for search in searches)),
            Series(tuple(100 * search.best.score.mean for search in searches)),
        )


async def measure(
    domain: str, racing: tuple[int, float] | None, *, seeds: int, acceptance: Acceptance, unpaired: bool
) -> Outcome:
    """Run the searches of all seeds: racing with (block size, alpha), or full scoring for ``None``."""
    searches = []
    for seed in range(seeds):
        gpo = optimizer(domain, seed, acceptance, unpaired=unpaired)
        if racing is not None:
            block, alpha = racing
            race = Racing(num_examples=NUM_VAL, block=block, alpha=alpha, max_unscored=0.05, seed=seed)
            gpo = replace(gpo, scoring=race)
        searches.append(await search(gpo, domain))
    return Outcome.of(searches)


def mean(by_domain: Mapping[str, Outcome]) -> Outcome:
    """Average over the domains, seed by seed."""
    calls = zip(*(outcome.calls.values for outcome in by_domain.values()), strict=True)
    val = zip(*(outcome.val.values for outcome in by_domain.values()), strict=True)
    return Outcome(Series(tuple(map(fmean, calls))), Series(tuple(map(fmean, val))))


def row(name: str, block: int, alpha: float, full: Outcome, raced: Outcome) -> str:
    """One row of the table."""
    saved = 1 - raced.calls.mean / full.calls.mean
    difference = raced.val - full.val
    return (
        f"| {name} | {block} | {alpha:g} | {full.calls.mean:,.0f} | {raced.calls.mean:,.0f} | {100 * saved:.0f} % "
        f"| {full.val.mean:.1f} ± {full.val.stderr:.1f} | {raced.val.mean:.1f} ± {raced.val.stderr:.1f} "
        f"| {difference.mean:+.1f} ± {difference.stderr:.1f} |"
    )


async def report(options: argparse.Namespace) -> None:
    """Print the table."""
    print("| Domain | Block | alpha | Calls, full | raced | saved | val, full | raced | difference |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    settings = {
        "seeds": options.seeds,
        "acceptance": ACCEPTANCES[options.acceptance],
        "unpaired": options.unpaired,
    }
    full = {domain: await measure(domain, None, **settings) for domain in DOMAINS}
    for block in options.block:
        for alpha in options.alpha:
            raced = {domain: await measure(domain, (block, alpha), **settings) for domain in DOMAINS}
            for domain in () if options.short else DOMAINS:
                print(row(domain, block, alpha, full[domain], raced[domain]))
            print(row("all", block, alpha, mean(full), mean(raced)), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.racing", description=__doc__)
    parser.add_argument("--block", type=int, nargs="+", default=[10], help="number of examples in the first block")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.1], help="significance level of a round's tests")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of searches in each domain")
    parser.add_argument("--acceptance", choices=ACCEPTANCES, default="best_of_step")
    parser.add_argument("--unpaired", action="store_true", help="each prompt is right about other examples")
    parser.add_argument("--short", action="store_true", help="only the rows for all domains")
    asyncio.run(report(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
