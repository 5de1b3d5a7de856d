"""How much each part of a meta-prompt helps a search on the simulated models, as a mean over many seeds.

The differences are several standard errors, so they remain when a change of wording changes the random draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import mean

import pytest

from benchmarks.simulated.domains import DOMAINS, make_task
from benchmarks.simulated.landscape import quality
from benchmarks.simulated.models import SimulatedEmbedder, SimulatedModel
from benchmarks.simulated.service import Behaviour
from benchmarks.simulated_endpoint import SimulatedEndpoint
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import Message, Sampling
from gpo.optimizer import GPO
from gpo.strategies.acceptance import BestOfStep
from gpo.strategies.batches import TrainBatches
from gpo.strategies.meta_prompt import CompactMetaPrompt, FullMetaPrompt, MetaPrompt
from gpo.strategies.proposer import SamplingProposer
from gpo.strategies.refinement import Paraphrase
from gpo.strategies.reflection import FailureReflector, NoReflection
from gpo.strategies.retrieval import RelevanceRetriever
from gpo.strategies.schedule import CosineSchedule
from gpo.strategies.summary import NoSummary, RunningSummary
from gpo.testing.fakes import FakeEvaluator
from gpo.trajectory import Trajectory

STEPS, SEEDS = 12, 40
WITH_SCORES, WITHOUT_SCORES = FullMetaPrompt(), FullMetaPrompt(show_scores=False)
HOT = Sampling(temperature=1.0)
MODEL = SimulatedModel()


@cache
def task(domain: str) -> Task:
    return make_task(domain, 130)


def evaluator(domain: str) -> LocalEvaluator:
    return LocalEvaluator(task(domain), MODEL, Sampling(temperature=0), RuleGrader(task(domain).scorer))


@dataclass(frozen=True)
class Variant:
    """A search with one configuration of its direction and meta-prompt."""

    meta_prompt: MetaPrompt = WITH_SCORES
    num_neighbours: int = 7
    reflection: bool = False
    summary: bool = False
    domain: str = "tickets"

    def optimizer(self, seed: int) -> GPO:
        train = task(self.domain).examples[Split.TRAIN]
        reflector = FailureReflector(model=MODEL, sampling=HOT, answerer=evaluator(self.domain), examples=train)
        return GPO(
            retriever=RelevanceRetriever(SimulatedEmbedder()),
            reflector=reflector if self.reflection else NoReflection(),
            summarizer=RunningSummary(model=MODEL, sampling=HOT) if self.summary else NoSummary(),
            schedule=CosineSchedule(initial=50, final=10, num_steps=STEPS),
            proposer=SamplingProposer(
                model=MODEL,
                sampling=HOT,
                meta_prompt=self.meta_prompt,
                position=task(self.domain).answer_format.position,
            ),
            # The landscape itself instead of 40 answers per prompt, which has less noise and is much faster.
            evaluator=FakeEvaluator(lambda prompt: [quality(prompt.text, self.domain)]),
            acceptance=BestOfStep(),
            num_steps=STEPS,
            num_candidates=8,
            num_neighbours=self.num_neighbours,
            train=train,
            batches=TrainBatches(len(train), batch_size=8, seed=seed),
            num_exemplars=3,
            seed=seed,
        )

    async def search(self, seed: int) -> Trajectory:
        gpo = self.optimizer(seed)
        trajectory = await gpo.start(task(self.domain).initial)
        async for later in gpo.run(trajectory):
            trajectory = later
        return trajectory

    async def height(self) -> float:
        """The mean quality of the best prompts over all seeds."""
        return mean([(await self.search(seed)).best.score.mean for seed in range(SEEDS)])


async def test_a_search_with_scores_ends_higher_than_one_without() -> None:
    gpo = await Variant().height()
    without = await Variant(WITHOUT_SCORES).height()
    paraphrase = await Variant(FullMetaPrompt(Paraphrase())).height()
    initial = quality(DOMAINS["tickets"].initial)
    assert gpo > without + 0.02
    assert without > paraphrase + 0.1
    assert paraphrase > initial


async def test_reflection_and_summary_help_without_a_history() -> None:
    alone = await Variant(num_neighbours=0).height()
    assert await Variant(num_neighbours=0, reflection=True).height() > alone + 0.05
    assert await Variant(num_neighbours=0, summary=True).height() > alone + 0.015


async def test_rewritings_in_a_compact_meta_prompt_help() -> None:
    alone = await Variant(CompactMetaPrompt(), num_neighbours=0).height()
    assert await Variant(CompactMetaPrompt()).height() > alone + 0.02


async def test_searches_are_reproducible_and_work_in_other_domains() -> None:
    variant = Variant(reflection=True, summary=True, domain="crafts")
    search = await variant.search(seed=1)
    assert search == await variant.search(seed=1) != await variant.search(seed=2)
    assert search.best.score.mean > search.initial.score.mean + 0.2


@pytest.mark.parametrize("domain", DOMAINS)
async def test_val_scores_match_the_landscape(domain: str) -> None:
    best = (await Variant(domain=domain).search(seed=0)).best.prompt
    for prompt in (task(domain).initial, best):
        (evaluation,) = await evaluator(domain).evaluate([prompt], Split.VAL)
        assert evaluation.score.mean == pytest.approx(quality(prompt.text, domain), abs=0.15)


async def test_the_model_without_http_replies_as_the_endpoint_does() -> None:
    behaviour = Behaviour(seed=3, malformed_rate=0.3)
    meta: list[Message] = [{"role": "user", "content": "Rewrite this instruction: Name the label."}]
    ticket: list[Message] = [{"role": "user", "content": f"Name it.\n{task('tickets').examples[Split.VAL][0].input}"}]
    settings = [Sampling(temperature=t, max_tokens=m, stop=("<END>",), seed=4) for t in (0, 1, None) for m in (3, 900)]
    with SimulatedEndpoint(behaviour) as endpoint:
        remote = openai_model(Endpoint(endpoint.base_url, "opt-model"))
        for messages in (meta, ticket):
            for sampling in settings:
                expected = await remote.complete(messages, sampling)
                assert await SimulatedModel(seed=3, malformed_rate=0.3).complete(messages, sampling) == expected
