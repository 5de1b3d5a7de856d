from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

import pytest
import ray

from actors.limiter import LimiterActor
from actors.metrics.totals import ProcessReport
from cluster.session.ray_connection import ray_connection
from gpo.limits.gate import Gate
from gpo.limits.messages import Budget, Pool, Spent
from gpo.models.protocol import Usage
from gpo.runtime.process import ProcessIdentity
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_connection("local", cpus_needed=2):
        yield


class Endpoint:
    now = most = answered = 0

    async def call(self, gate: Gate) -> None:
        admission = await gate.enter()
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        self.answered += 1
        admission.usage = Usage(requests=1, prompt_tokens=3)
        gate.leave(admission)


async def test_calls_continue_when_the_limiter_dies_and_it_learns_the_spending_again(cluster: None) -> None:
    limiter, endpoint = LimiterActor(f"limiter-{uuid4().hex}").start(), Endpoint()
    budget = Budget(calls=1000)
    await limiter.open_budget("run", budget, Spent(calls=5))
    pool = Pool("http://here/v1", "model", 8, 8, budget_name="run", has_budget=True, has_call_budget=True)
    gates = [Gate(limiter, pool), Gate(LimiterActor(limiter.name), pool)]
    first = [asyncio.create_task(endpoint.call(gates[number % 2])) for number in range(200)]
    while endpoint.answered < 60:  # noqa: ASYNC110  # counted by the calls themselves
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    known = await limiter.budget_spent("run", budget, Spent())
    assert known.calls > 60

    ray.kill(limiter._actor, no_restart=False)
    async with asyncio.timeout(120):
        while (spent := await _spent(limiter, budget, known)) is None:  # noqa: ASYNC110  # Ray sends no event
            await asyncio.sleep(0.1)
    assert spent.calls >= known.calls
    async with asyncio.timeout(60):
        await asyncio.gather(*first)
    assert endpoint.most == 8
    assert endpoint.answered == 200


async def _spent(limiter: LimiterActor, budget: Budget, known: Spent) -> Spent | None:
    """What the limiter knows; nothing while Ray starts its process again."""
    with suppress(ConnectionError):
        return await limiter.budget_spent("run", budget, known)
    return None


def test_a_process_that_reports_its_counts_does_not_start_the_limiter(cluster: None) -> None:
    limiter = LimiterActor(f"limiter-{uuid4().hex}")
    report = ProcessReport("session", ProcessIdentity.current(), "evaluator", 1, 1, {})
    with pytest.raises(ConnectionError):
        limiter.report_counts(report)
    with pytest.raises(ConnectionError):
        limiter.newest_counts("session", {})
    starter = LimiterActor(limiter.name).start()  # the actor ends with the last handle
    wait_until(lambda: starter.newest_counts("session", {}) == [])  # its process takes seconds to start
    assert limiter.report_counts(report)
    assert limiter.newest_counts("session", {}) == [report]


async def test_all_limiters_of_one_name_share_one_actor(cluster: None) -> None:
    name = f"limiter-{uuid4().hex}"
    first = LimiterActor(name)
    await first.open_budget("run", Budget(), Spent(calls=7))
    assert (await LimiterActor(name).budget_spent("run", Budget(), Spent())).calls == 7
