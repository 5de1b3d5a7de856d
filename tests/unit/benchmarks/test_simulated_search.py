"""Searches on the simulated models."""

from __future__ import annotations

from functools import cache

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
from gpo.strategies.batches import TrainBatches
from gpo.strategies.meta_prompt import FullMetaPrompt
from gpo.strategies.proposer import SamplingProposer
from gpo.strategies.reflection import FailureReflector
from gpo.strategies.retrieval import RelevanceRetriever
from gpo.strategies.schedule import CosineSchedule
from gpo.strategies.summary import RunningSummary
from gpo.testing.fakes import FakeEvaluator
from gpo.trajectory import Trajectory
from tests.optimizers import fake_optimizer

STEPS = 12
HOT = Sampling(temperature=1.0)
MODEL = SimulatedModel()


@cache
def task(domain: str) -> Task:
    return make_task(domain, 130)


def evaluator(domain: str) -> LocalEvaluator:
    return LocalEvaluator(task(domain), MODEL, Sampling(temperature=0), RuleGrader(task(domain).scorer))


async def search(domain: str, seed: int) -> Trajectory:
    """A search with a reflection and a summary in each step."""
    train = task(domain).examples[Split.TRAIN]
    gpo = fake_optimizer(
        retriever=RelevanceRetriever(SimulatedEmbedder()),
        reflector=FailureReflector(model=MODEL, sampling=HOT, answerer=evaluator(domain), examples=train),
        summarizer=RunningSummary(model=MODEL, sampling=HOT),
        schedule=CosineSchedule(initial=50, final=10, num_steps=STEPS),
        proposer=SamplingProposer(
            model=MODEL, sampling=HOT, meta_prompt=FullMetaPrompt(), position=task(domain).answer_format.position
        ),
        # The landscape itself instead of 40 answers per prompt, which has less noise and is much faster.
        evaluator=FakeEvaluator(lambda prompt: [quality(prompt.text, domain)]),
        num_steps=STEPS,
        num_candidates=8,
        num_neighbours=7,
        train=train,
        batches=TrainBatches(len(train), batch_size=8, seed=seed),
        num_exemplars=3,
        seed=seed,
    )
    trajectory = await gpo.start(task(domain).initial)
    async for later in gpo.run(trajectory):
        trajectory = later
    return trajectory


@pytest.mark.parametrize("domain", DOMAINS)
async def test_a_search_improves_the_prompt_in_every_domain_and_is_reproducible(domain: str) -> None:
    found = await search(domain, seed=1)
    assert found == await search(domain, seed=1) != await search(domain, seed=2)
    assert found.best.score.mean > found.initial.score.mean + 0.2
    for prompt in (task(domain).initial, found.best.prompt):
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
