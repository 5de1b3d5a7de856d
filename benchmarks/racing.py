"""What racing saves, and what it costs: ``python -m benchmarks.racing [OPTIONS]``.

Searches on the simulated models, in this process, with every candidate scored in full and with candidates raced: eight
candidates a step on 100 ``val`` examples. Prints a Markdown table: task model calls, and the best prompt's score on
``val``, each in the mean over seeds, with standard errors. The searches of a row share task, seed and models.

The simulated task model is right about every example that it is right about with a worse prompt. That is kind to paired
tests, so ``--unpaired`` breaks it: then it is right about other examples with every prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from random import Random
from statistics import fmean, stdev

from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.hashing import uniform
from benchmarks.simulated.landscape import quality
from benchmarks.simulated.models import SimulatedModel, embed
from gpo.data.example import Example
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
PER_LABEL: Mapping[Split, int] = {Split.TRAIN: 6, Split.VAL: 25}
"""Of four labels."""
NUM_VAL = 4 * PER_LABEL[Split.VAL]
ACCEPTANCES: Mapping[str, Acceptance] = {
    "best_of_step": BestOfStep(),
    "strict_improvement": StrictImprovement(),
    "within_error": WithinError(),
}
MODEL = SimulatedModel()


class _Embedder:
    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [embed(text) for text in texts]


class _Unpaired:
    """An evaluator that is right as often as the prompt is good, about other examples with every prompt."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        asked = range(NUM_VAL) if indices is None else indices
        await asyncio.sleep(0)
        return [
            Evaluation(
                Score(
                    tuple(
                        float(uniform(0, "unpaired", prompt.id, str(index)) < quality(prompt.text, self._domain))
                        for index in asked
                    )
                ),
                Usage(requests=len(asked)),
            )
            for prompt in prompts
        ]


@cache
def task(domain: str) -> Task:
    """A task of the domain with 100 ``val`` examples, all labels equally frequent, in random order."""
    draw, chosen = Random(f"racing/{domain}"), {split: list[Example]() for split in PER_LABEL}
    for label in DOMAINS[domain].labels:
        drawn = iter(draw.sample(DOMAINS[domain].examples(label), sum(PER_LABEL.values())))
        for split, size in PER_LABEL.items():
            chosen[split] += [Example(next(drawn), (label,)) for _ in range(size)]
    for examples in chosen.values():
        draw.shuffle(examples)
    splits = {split: tuple(examples) for split, examples in chosen.items()}
    return Task(domain, Prompt(DOMAINS[domain].initial), splits, LabelScorer(DOMAINS[domain].labels))


def optimizer(domain: str, seed: int, acceptance: Acceptance, *, unpaired: bool) -> GPO:
    """GPO with its defaults, scoring candidates in full."""
    train, scorer = task(domain).examples[Split.TRAIN], LabelScorer(DOMAINS[domain].labels)
    paired = LocalEvaluator(task(domain), MODEL, Sampling(temperature=0), RuleGrader(scorer))
    evaluator: Evaluator = _Unpaired(domain) if unpaired else paired
    return GPO(
        retriever=RelevanceRetriever(_Embedder()),
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
    """A whole search."""
    trajectory = await gpo.start(task(domain).initial)
    async for later in gpo.run(trajectory):
        trajectory = later
    return trajectory


@dataclass(frozen=True, slots=True)
class Series:
    """One number for each seed, or of each seed in one domain after the other."""

    values: tuple[float, ...]

    def __sub__(self, other: Series) -> Series:
        return Series(tuple(mine - theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    @property
    def mean(self) -> float:
        """Their mean."""
        return fmean(self.values)

    @property
    def stderr(self) -> float:
        """Its standard error."""
        return stdev(self.values) / sqrt(len(self.values))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What searches took and found: task calls, and the best prompt's score on ``val`` as a percentage."""

    calls: Series
    val: Series

    @classmethod
    def of(cls, searches: Sequence[Trajectory]) -> Outcome:
        """From finished searches."""
        return cls(
            Series(tuple(float(search.spending.task.requests) for search in searches)),
            Series(tuple(100 * search.best.score.mean for search in searches)),
        )


async def measure(
    domain: str, racing: tuple[int, float] | None, *, seeds: int, acceptance: Acceptance, unpaired: bool
) -> Outcome:
    """The searches of all seeds, with a block size and an alpha, or with every candidate scored in full."""
    searches = []
    for seed in range(seeds):
        gpo = optimizer(domain, seed, acceptance, unpaired=unpaired)
        if racing is not None:
            block, alpha = racing
            race = Racing(num_examples=NUM_VAL, block=block, alpha=alpha, max_unscored=0.05, seed=seed)
            gpo = replace(gpo, scoring=race)
        searches.append(await search(gpo, domain))
    return Outcome.of(searches)


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """All domains as one: a value is a seed's mean over the domains."""
    calls = zip(*(outcome.calls.values for outcome in outcomes), strict=True)
    val = zip(*(outcome.val.values for outcome in outcomes), strict=True)
    return Outcome(Series(tuple(map(fmean, calls))), Series(tuple(map(fmean, val))))


def rows(name: str, block: int, alpha: float, full: Outcome, raced: Outcome) -> Iterator[str]:
    """One line of the table."""
    saved = 1 - raced.calls.mean / full.calls.mean
    difference = raced.val - full.val
    yield (
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
                print(*rows(domain, block, alpha, full[domain], raced[domain]), sep="\n")
            together = joined(list(full.values())), joined(list(raced.values()))
            print(*rows("all", block, alpha, *together), sep="\n", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.racing", description=__doc__)
    parser.add_argument("--block", type=int, nargs="+", default=[10], help="examples of the first block")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.1], help="level of a round's tests")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="searches in each domain")
    parser.add_argument("--acceptance", choices=ACCEPTANCES, default="best_of_step")
    parser.add_argument("--unpaired", action="store_true", help="right about other examples with every prompt")
    parser.add_argument("--short", action="store_true", help="only the line of all domains")
    asyncio.run(report(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
