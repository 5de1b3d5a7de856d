from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from gpo.errors import BudgetExhausted, OutOfReach
from gpo.limits.gate import Admission, Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Grant, Pool, Report, Spent
from gpo.models.protocol import Usage
from gpo.runtime.context import current_caller

POOL = Pool("http://here/v1", "model", 8, 8)


@asynccontextmanager
async def admitted(gate: Gate, *sizes: int) -> AsyncIterator[Admission]:
    admission = await gate.enter(*sizes)
    try:
        yield admission
    finally:
        gate.leave(admission)


@dataclass
class Served:
    """An endpoint that records what it sees."""

    limit: int = 10**9
    latency_s: float = 0.005
    now: int = 0
    most: int = 0
    refused: int = 0
    order: list[str] = field(default_factory=list)

    async def call(self, gate: Gate, owner: str = "", tokens: int = 10) -> None:
        """Make one call, repeated until it is answered."""
        current_caller.set(owner)
        while True:
            async with admitted(gate, 40, 10) as admission:
                if self.now >= self.limit:
                    self.refused += 1
                    admission.refused(0.02)
                else:
                    self.now += 1
                    self.most = max(self.most, self.now)
                    self.order.append(owner)
                    try:
                        await asyncio.sleep(self.latency_s)
                    finally:
                        self.now -= 1
                    admission.usage = Usage(requests=1, prompt_tokens=tokens, cost_usd=0.01)
                    return
            await asyncio.sleep(0.02)

    async def calls(self, gates: Sequence[Gate], number: int, **options: int) -> list[BaseException | None]:
        work = (self.call(gates[index % len(gates)], **options) for index in range(number))
        return await asyncio.gather(*work, return_exceptions=True)


class Counted(LocalLimiter):
    """Counts messages."""

    asked = 0

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        self.asked += 1
        return await super().exchange(report, wait_s)

    async def notify(self, report: Report) -> None:
        self.asked += 1
        await super().notify(report)


class Flaky(LocalLimiter):
    """Fails a number of times, and has then forgotten everything."""

    failures = 0

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("gone")
        return await super().exchange(report, wait_s)


async def test_gates_share_the_slots_and_use_them_all() -> None:
    limiter, served = Counted(), Served()
    assert await served.calls([Gate(limiter, POOL) for _ in range(3)], 300) == [None] * 300
    assert served.most == 8
    assert limiter.asked < 60


async def test_the_limiter_gets_few_messages_from_16_gates_with_512_slots() -> None:
    """Else it would be what 512 concurrent calls wait for: it is one process."""
    limiter, served = Counted(), Served(latency_s=0.02)
    pool = replace(POOL, concurrency=512, endpoint_concurrency=512)
    calls = 8192
    assert await served.calls([Gate(limiter, pool) for _ in range(16)], calls) == [None] * calls
    assert 256 < served.most <= 512
    assert limiter.asked < calls / 20


async def test_a_single_gate_sends_few_messages() -> None:
    limiter, served = Counted(), Served(latency_s=0.001)
    await served.calls([Gate(limiter, POOL)], 2000)
    assert served.most == 8
    assert limiter.asked < 10


async def test_the_cost_of_the_last_calls_is_reported_soon() -> None:
    limiter, served = Counted(), Served()
    gates = [Gate(limiter, POOL) for _ in range(3)]
    for number in (60, 30):  # the second time after all were idle
        before = (await limiter.budget_spent("", Budget(), Spent())).calls
        await served.calls(gates, number)
        async with asyncio.timeout(60):
            while (await limiter.budget_spent("", Budget(), Spent())).calls != before + number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_late_gate_gets_its_share() -> None:
    limiter, served = LocalLimiter(), Served(latency_s=0.02)
    first, second = Gate(limiter, POOL), Gate(limiter, POOL)
    early = [asyncio.create_task(served.call(first, "early")) for _ in range(200)]
    await asyncio.sleep(0.1)
    late = [asyncio.create_task(served.call(second, "late")) for _ in range(40)]
    await asyncio.gather(*late)
    assert sum(not task.done() for task in early) > 60, "the late ones did not wait for all the early ones"
    await asyncio.gather(*early)
    assert served.most == 8


async def test_trajectories_in_one_process_take_turns() -> None:
    served, gate = Served(), Gate(LocalLimiter(), replace(POOL, concurrency=1, endpoint_concurrency=1))
    await asyncio.gather(*(served.call(gate, owner) for owner in ("a",) * 30 + ("b",) * 3))
    assert served.order[:7].count("b") == 3


async def test_cancelling_requests_loses_no_slot() -> None:
    served, gate = Served(), Gate(LocalLimiter(), POOL)
    for _ in range(5):
        calls = [asyncio.create_task(served.call(gate)) for _ in range(50)]
        await asyncio.sleep(0.008)
        for call in calls[::2]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(result is None for result in results[1::2])
    served.most = 0
    await served.calls([gate], 50)
    assert served.most == 8


async def test_an_unknown_limit_is_found() -> None:
    served, gates = Served(limit=5, latency_s=0.005), [Gate(LocalLimiter(), POOL)]
    assert await served.calls(gates, 400) == [None] * 400
    first = served.refused
    assert await served.calls(gates, 1000) == [None] * 1000
    assert served.refused - first < 0.02 * 1000


async def test_a_gate_reconnects_to_a_limiter_that_was_unreachable() -> None:
    limiter, served = Flaky(), Served(latency_s=0.02)
    gate = Gate(limiter, POOL)
    calls = asyncio.create_task(served.calls([gate], 200))
    await asyncio.sleep(0.05)
    limiter.failures = 1
    assert await calls == [None] * 200
    assert served.most == 8


async def test_a_call_budget_is_exact() -> None:
    limiter, served = LocalLimiter(), Served(latency_s=0.001)
    pool = replace(POOL, budget_name="run", has_call_budget=True)
    await limiter.open_budget("run", Budget(calls=100), Spent(calls=15))
    gates = [Gate(limiter, pool), Gate(limiter, pool)]
    results = Counter(type(result) for result in await served.calls(gates, 120))
    assert results == {type(None): 85, BudgetExhausted: 35}
    assert await limiter.budget_spent("run", Budget(calls=100), Spent()) == Spent(100, 850, pytest.approx(0.85))
    assert Counter(type(result) for result in await served.calls(gates, 3)) == {BudgetExhausted: 3}
    await limiter.open_budget("run", Budget(calls=100), Spent(calls=98))
    results = Counter(type(result) for result in await served.calls(gates, 3))
    assert results == {type(None): 2, BudgetExhausted: 1}


@pytest.mark.timeout(30)
async def test_a_request_that_is_cancelled_while_the_budget_ends_does_not_stop_the_event_loop() -> None:
    limiter, began = LocalLimiter(), time.monotonic()
    await limiter.open_budget("run", Budget(calls=1), Spent())
    gate = Gate(limiter, replace(POOL, budget_name="run", has_call_budget=True))
    async with admitted(gate):
        waiting = asyncio.create_task(gate.enter())
        await asyncio.sleep(0.05)
        await limiter.open_budget("run", Budget(calls=1), Spent(calls=1))  # the gate learns of it in the next pass,
        waiting.cancel()  # before this request does
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert time.monotonic() - began < 20  # the gate would catch the error of the test's time limit


@pytest.mark.parametrize("is_refused", [True, False])
def test_an_event_loop_that_ends_leaves_no_task_of_a_gate_behind(is_refused: bool) -> None:
    """Each would be an error in the log."""
    loops = []

    async def call(gate: Gate) -> None:
        async with admitted(gate) as admission:
            if is_refused:
                admission.refused(0.0)
            await asyncio.Event().wait()

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        limiter = LocalLimiter()
        await limiter.open_budget("run", Budget(calls=100), Spent())
        gate = Gate(limiter, replace(POOL, budget_name="run", has_call_budget=True))
        calls = [asyncio.create_task(call(gate)) for _ in range(3 * POOL.concurrency)]
        await gate.enter()
        assert not any(one.done() for one in calls)

    for _ in range(20):  # the order in which the tasks are cancelled is random
        asyncio.run(main())
    assert [asyncio.all_tasks(loop) for loop in loops] == [set()] * len(loops)


async def test_requests_do_not_wait_for_an_exchange_that_was_cancelled() -> None:
    gate = Gate(LocalLimiter(), replace(POOL, concurrency=1))
    async with admitted(gate):
        waiting = asyncio.create_task(gate.enter())
        await asyncio.sleep(0)
        (exchange,) = [task for task in asyncio.all_tasks() if "GateState._exchange" in repr(task)]
        exchange.cancel()
        with pytest.raises(OutOfReach, match="the event loop of this process ends"):
            await waiting
    async with asyncio.timeout(60), admitted(gate):
        pass


@pytest.mark.parametrize("budget", [Budget(tokens=500), Budget(usd=0.5)])
async def test_token_and_dollar_budgets_are_exceeded_only_by_calls_in_flight(budget: Budget) -> None:
    limiter, served = LocalLimiter(), Served()
    await limiter.open_budget("run", budget, Spent())
    gate = Gate(limiter, replace(POOL, budget_name="run", has_budget=True))
    first = Counter(type(result) for result in await served.calls([gate], 300))
    assert 50 <= first[type(None)] <= 50 + 3 * 8
    assert first.total() == 300
    assert set(first) == {type(None), BudgetExhausted}
    assert Counter(type(result) for result in await served.calls([gate], 9)) == {BudgetExhausted: 9}


async def test_rates_are_respected() -> None:
    served, gate = Served(latency_s=0.001), Gate(LocalLimiter(), replace(POOL, requests_per_min=1200))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await served.calls([gate], 40)
    assert loop.time() - begun > (40 - 20 - 1) / 20


@pytest.mark.parametrize("calls", [None, 60])
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_every_request_ends_under_refusals_failures_and_cancellation(limit: int, calls: int | None) -> None:
    """More gates than slots, with refusals, failures and cancelled requests, with and without a budget."""
    draw, limiter, served = random.Random(limit), LocalLimiter(), Served(latency_s=0.002)
    await limiter.open_budget("run", Budget(calls=calls), Spent())
    pool = replace(
        POOL, concurrency=limit, endpoint_concurrency=limit, budget_name="run",
        has_budget=calls is not None, has_call_budget=calls is not None,
    )  # fmt: skip
    gates = [Gate(limiter, pool) for _ in range(4)]

    async def call(gate: Gate) -> None:
        while True:
            async with admitted(gate, 4, 4) as admission:
                served.now += 1
                served.most = max(served.most, served.now)
                try:
                    await asyncio.sleep(draw.random() * served.latency_s)
                finally:
                    served.now -= 1
                fate = draw.random()
                if fate < 0.1:
                    admission.refused(0.0)
                elif fate > 0.15:
                    admission.usage = Usage(requests=1)
                    return
            await asyncio.sleep(0.001)

    work = [asyncio.create_task(call(draw.choice(gates))) for _ in range(120)]
    for task in work[::10]:
        await asyncio.sleep(0.002)
        task.cancel()
    async with asyncio.timeout(40):
        results = await asyncio.gather(*work, return_exceptions=True)
    kinds = Counter(type(result) for result in results)
    assert set(kinds) <= {type(None), BudgetExhausted, asyncio.CancelledError}
    assert calls is None or kinds[type(None)] <= calls
    assert served.most <= limit


async def test_a_limiter_that_does_not_answer_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(LocalLimiter):
        async def exchange(self, report: Report, wait_s: float) -> Grant:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("gpo.limits.gate._REPLY_DELAY_S", -0.95)
    monkeypatch.setattr("gpo.limits.gate._PATIENCE_S", 0.1)
    gate = Gate(Silent(), POOL)
    for _ in range(2):  # later requests are rejected, too
        with pytest.raises(OutOfReach, match="limiter is out of reach"):
            async with asyncio.timeout(60), admitted(gate):
                pass
    # One warning, not one per attempt.
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "the limiter is out of reach; trying again: no answer"
    ]


def test_a_gate_works_in_several_event_loops() -> None:
    gate = Gate(LocalLimiter(), POOL)
    for _ in range(2):
        served = Served()

        async def calls(served: Served = served) -> list[BaseException | None]:
            async with asyncio.timeout(60):
                return await served.calls([gate], 40)

        assert asyncio.run(calls()) == [None] * 40


async def test_replies_without_usage_count_the_expected_tokens() -> None:
    limiter, served = LocalLimiter(), Served(latency_s=0.001)
    await limiter.open_budget("run", Budget(tokens=200), Spent())
    gate = Gate(limiter, replace(POOL, budget_name="run", has_budget=True))  # 40 characters and 10 tokens: 20 in all
    assert BudgetExhausted in {type(result) for result in await served.calls([gate], 60, tokens=0)}


async def test_a_gate_stays_while_its_calls_wait_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo.limits.gate._BUSY_S", 0.01)
    monkeypatch.setattr("gpo.limits.gate._IDLE_S", 0.01)
    limiter = LocalLimiter()
    gate = Gate(limiter, POOL)
    now = time.monotonic()
    gate.wait_begins("first", "HTTP 503: starting", now - 20)
    gate.wait_begins("second", "HTTP 500: failing", now - 60)

    async def waits(pattern: str) -> None:
        async with asyncio.timeout(60):
            while not re.fullmatch(pattern, str(await limiter.longest_wait(""))):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    await waits(r"waiting for 6\d s: HTTP 500: failing")
    await asyncio.sleep(0.3)  # many times as long as an idle gate stays
    await waits(r"waiting for 6\d s: HTTP 500: failing")
    gate.wait_ends("second")
    await waits(r"waiting for 2\d s: HTTP 503: starting")
    gate.wait_ends("first")
    await waits("None")
    async with asyncio.timeout(60):
        while not limiter.is_idle:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
