from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gpo.limits.budget import BudgetAccount
from gpo.limits.fairness import FairQueue, Want, fair_shares
from gpo.limits.limiter_state import LimiterState
from gpo.limits.messages import LEASE_S, Budget, Grant, Pool, Report, Spent
from gpo.limits.rates import AdaptiveConcurrency, MinuteRate
from gpo.runtime.process import ProcessIdentity

POOL = Pool("http://here/v1", "model", 32, 32)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Holder:
    """A gate as the limiter sees it."""

    def __init__(self, limiter: LimiterState, name: str, pool: Pool = POOL) -> None:
        self.limiter, self.report = limiter, Report(name, 0, pool)

    @property
    def slots(self) -> int:
        return self.report.slots

    def reports(self, **changes: object) -> None:
        once = {"refused": 0, "succeeded": 0, "tokens_beyond": 0.0, "retry_after_s": 0.0}
        self.report = replace(self.report, number=self.report.number + 1, **{**once, **changes})  # type: ignore[arg-type]
        self.limiter.take(self.report)

    def receives(self) -> Grant | None:
        grant = self.limiter.grant(self.report.holder)
        if grant is not None:
            # Surplus requests in flight continue.
            self.report = replace(
                self.report,
                epoch=grant.epoch,
                slots=max(grant.slots, self.report.in_flight),
                permits_received=self.report.permits_received + grant.permits,
            )
        return grant


def test_a_single_holder_gets_its_demand_up_to_the_limit() -> None:
    holder = Holder(LimiterState(Clock()), "a")
    holder.reports(demand=10)
    assert holder.receives() == Grant(1, 10)
    assert holder.receives() is None
    holder.reports(demand=100)
    assert holder.receives() == Grant(2, 32)


def test_a_slot_goes_to_another_holder_only_after_its_return() -> None:
    limiter = LimiterState(Clock())
    first, second = Holder(limiter, "a"), Holder(limiter, "b")
    first.reports(demand=100)
    first.receives()
    first.reports(demand=100, in_flight=32)
    second.reports(demand=100)
    grant = second.receives()
    assert grant is not None
    assert (grant.slots, grant.contended) == (0, True)
    grant = first.receives()
    assert grant is not None
    assert (grant.slots, grant.contended) == (16, True)
    second.reports(demand=100)
    assert second.receives() is None
    first.reports(demand=100, in_flight=20, slots=20)
    assert second.receives() == Grant(2, 12, contended=True)
    first.reports(demand=100, in_flight=16, slots=16)
    assert second.receives() == Grant(3, 16, contended=True)


def test_a_report_from_before_a_grant_returns_no_slots() -> None:
    limiter = LimiterState(Clock())
    first, second = Holder(limiter, "a"), Holder(limiter, "b")
    first.reports(demand=32)
    stale = first.report
    first.receives()
    first.limiter.take(replace(stale, number=stale.number + 5, demand=0))
    second.reports(demand=32)
    assert second.receives() == Grant(1, 0, contended=False) or second.slots == 0


@pytest.mark.parametrize("dies", [True, False])
def test_a_holder_whose_process_ended_is_dropped_at_once(dies: bool) -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    dead, other = Holder(limiter, "a"), Holder(limiter, "b")
    process = ProcessIdentity.current()
    dead.reports(demand=32, process=replace(process, started="1") if dies else process)
    dead.receives()
    clock.now += 1
    other.reports(demand=32)
    other.receives()
    assert other.slots == (32 if dies else 0)


def test_a_silent_holder_is_dropped_after_its_lease() -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    dead, other = Holder(limiter, "a"), Holder(limiter, "b")
    dead.reports(demand=32)
    dead.receives()
    for _ in range(9):
        clock.now += LEASE_S / 10
        other.reports(demand=32)
        other.receives()
        assert other.slots == 0
    clock.now += LEASE_S / 5
    other.reports(demand=32)
    assert other.receives() is not None
    assert other.slots == 32


@pytest.mark.parametrize("is_known", [True, False])
def test_a_restarted_limiter_grants_only_what_is_reported_until_all_gates_had_time_to_report(is_known: bool) -> None:
    clock = Clock()
    limiter = LimiterState(clock, is_successor=is_known)
    first, second, new = Holder(limiter, "a"), Holder(limiter, "b"), Holder(limiter, "c")
    if is_known:
        new.reports(demand=40)
        new.receives()
    first.reports(demand=40, in_flight=16, slots=16, epoch=17)
    first.receives()
    assert (first.slots, new.slots) == (16, 0)
    second.reports(demand=40, in_flight=16, slots=16, epoch=3)
    for holder in (second, first, new):
        holder.reports(demand=40)
        holder.receives()
        assert first.slots + second.slots + new.slots <= 32
    clock.now += LEASE_S + 1
    first.reports(demand=40, in_flight=10, slots=10)  # the second is silent
    new.reports(demand=40)
    new.receives()
    assert (first.slots, new.slots) == (10, 16)


def test_a_gate_of_a_restarted_limiter_that_holds_more_than_its_share_returns_the_rest() -> None:
    limiter = LimiterState(Clock())
    survivor, other = Holder(limiter, "a"), Holder(limiter, "b")
    survivor.reports(demand=40, in_flight=30, slots=30, epoch=17)
    other.reports(demand=40)
    grant = survivor.receives()
    assert grant is not None
    assert (grant.epoch, grant.slots) == (18, 16)


def test_a_role_has_its_own_bound_within_that_of_the_endpoint() -> None:
    limiter = LimiterState(Clock())
    task = Holder(limiter, "a", Pool("e", "model", 32, 32, role="task"))
    optimizer = Holder(limiter, "b", Pool("e", "model", 8, 32, role="optimizer"))
    optimizer.reports(demand=50)
    optimizer.receives()
    assert optimizer.slots == 8
    task.reports(demand=50)
    task.receives()
    assert task.slots == 24


def test_slots_are_never_granted_twice() -> None:
    """Thirty holders that report, leave and die at random, while the limit changes."""
    draw, clock = random.Random(7), Clock()
    limiter = LimiterState(clock)
    holders = [Holder(limiter, str(number)) for number in range(30)]
    most = 0
    for _ in range(20_000):
        holder = draw.choice(holders)
        clock.now += draw.random() * 0.01
        match draw.randrange(4):
            case 0:
                demand = draw.choice([0, 0, 1, 5, 40])
                in_flight = min(demand, holder.report.in_flight)
                # Like a gate, it keeps what was granted or is still in flight.
                returned = holder.slots if holder.report.in_flight < holder.slots else 0
                holder.reports(demand=demand, in_flight=in_flight, slots=max(returned, in_flight))
            case 1:
                granted = holder.limiter.grant(holder.report.holder) if holder.report.number else None
                if granted is not None:
                    holder.report = replace(
                        holder.report,
                        epoch=granted.epoch,
                        slots=max(granted.slots, holder.report.in_flight),
                        in_flight=min(holder.report.demand, max(granted.slots, holder.report.in_flight)),
                    )
            case 2 if draw.random() < 0.05:
                version = limiter._endpoints[POOL.endpoint].adaptive.version
                holder.reports(refused=1, refused_version=version, in_flight=max(0, holder.report.in_flight - 1))
            case _:
                holder.reports(succeeded=3)
        in_flight = sum(one.report.in_flight for one in holders)
        most = max(most, in_flight)
        assert in_flight <= 32
    assert most == 32


def test_fewer_slots_than_holders_rotate() -> None:
    limiter = LimiterState(Clock())
    holders = [
        Holder(limiter, str(number), replace(POOL, concurrency=2, endpoint_concurrency=2)) for number in range(5)
    ]
    served = dict.fromkeys(range(5), 0)
    for _ in range(200):
        for number, holder in enumerate(holders):
            calls = holder.slots
            served[number] += calls
            holder.reports(demand=10, succeeded=calls, in_flight=0)
            holder.receives()
    assert min(served.values()) > 0.7 * max(served.values())


def test_a_refusal_lowers_the_limit_and_success_raises_it_again() -> None:
    limiter = LimiterState(Clock())
    holder = Holder(limiter, "a", replace(POOL, concurrency=64, endpoint_concurrency=64))
    holder.reports(demand=500)
    holder.receives()
    holder.reports(refused=32, in_flight=32, slots=32)
    grant = holder.receives()
    assert grant is not None
    assert (holder.slots, grant.version, grant.pause_s) == (32, 1, 0)
    holder.reports(refused=5, in_flight=32, refused_version=0)
    assert holder.receives() is None, "these were begun before the limit was lowered"
    holder.reports(succeeded=32 + 33)
    holder.receives()
    assert holder.slots == 34


def test_if_everything_is_refused_all_gates_pause() -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    holder = Holder(limiter, "a")
    holder.reports(demand=1)
    holder.receives()
    holder.reports(refused=1, retry_after_s=20.0, in_flight=0)
    grant = holder.receives()
    assert grant is not None
    assert grant.pause_s == 20.0


def test_the_limit_follows_a_growing_endpoint_within_its_bounds() -> None:
    adaptive = AdaptiveConcurrency(64)
    for capacity in (8, 40, 1):
        for _ in range(400):
            beyond = max(0, adaptive.limit - capacity)
            adaptive.succeeded(min(capacity, adaptive.limit))
            adaptive.refused(beyond, adaptive.version)
            assert 1 <= adaptive.limit <= 64
        assert 0.85 * capacity <= adaptive.limit <= capacity + 1
    adaptive.set_ceiling(3)
    assert adaptive.limit <= 3


@pytest.mark.parametrize("limit", [1, 7, 60, 500, 100_000])
def test_no_minute_exceeds_the_rate(limit: int) -> None:
    draw, now, rate = random.Random(limit), 0.0, MinuteRate(limit, 0.0)
    taken: list[tuple[float, float]] = []
    while now < 400:
        now += draw.choice([0.001, 0.3, 0.05, 11.0 if draw.random() < 0.002 else 0.01])
        amount = 1 if limit < 1000 else 900
        while rate.allows(amount, now):
            rate.take(amount, now)
            taken.append((now, amount))
    for start, _ in taken[::7]:
        assert sum(amount for when, amount in taken if start <= when < start + 60) <= limit
    # Apart from the pauses, the whole rate was available.
    assert sum(amount for _, amount in taken) > 0.6 * limit * 400 / 60 - 1


def test_holders_share_a_rate() -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    pool = replace(POOL, requests_per_min=600)
    holders = [Holder(limiter, name, pool) for name in "ab"]
    granted = {"a": 0, "b": 0}
    for _ in range(3000):
        clock.now += 0.02
        for holder in holders:
            holder.reports(demand=1000, permits_wanted=1000)
            grant = holder.receives()
            granted[holder.report.holder] += grant.permits if grant else 0
    assert 585 <= sum(granted.values()) <= 600
    assert abs(granted["a"] - granted["b"]) < 30


def test_the_token_rate_is_kept_on_average_by_actual_tokens() -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    holder = Holder(limiter, "a", replace(POOL, tokens_per_min=60_000))
    taken = 0
    for _ in range(6000):
        clock.now += 0.05
        holder.reports(demand=1000, permits_wanted=1000, tokens_each=100.0)
        grant = holder.receives()
        permits = grant.permits if grant else 0
        taken += 300 * permits  # three times what was expected
        holder.reports(tokens_beyond=200.0 * permits)
    assert 0.95 * 300_000 <= taken <= 1.02 * 300_000


def test_no_more_calls_are_answered_than_budgeted_and_failed_calls_return_permits() -> None:
    limiter = LimiterState(Clock())
    pool = replace(POOL, budget_name="run", has_call_budget=True)
    limiter.account("run").open(Budget(calls=100), Spent(calls=10))
    first, second = Holder(limiter, "a", pool), Holder(limiter, "b", pool)
    first.reports(demand=60, permits_wanted=60)
    second.reports(demand=60, permits_wanted=60)
    grants = first.receives(), second.receives()
    assert [grant.permits for grant in grants if grant] == [60, 30]
    second.reports(demand=30, permits_wanted=30, spent=Spent(calls=25, tokens=100), permits_returned=5)
    grant = second.receives()
    assert grant is not None
    assert (grant.permits, grant.exhausted) == (5, "")
    first.reports(demand=0, spent=Spent(calls=60))
    second.reports(demand=25, permits_wanted=25, spent=Spent(calls=30), permits_returned=5)
    grant = second.receives()
    assert grant is not None
    assert grant.exhausted == "budget.calls: 100 model calls were answered"
    assert limiter.account("run").spent.calls == 100


def test_an_unknown_budget_grants_no_permits() -> None:
    limiter = LimiterState(Clock())
    holder = Holder(limiter, "a", replace(POOL, budget_name="run", has_call_budget=True))
    holder.reports(demand=5, permits_wanted=5)
    grant = holder.receives()
    assert grant is not None
    assert grant.permits == 0


@pytest.mark.parametrize(
    ("budget", "said"), [(Budget(tokens=500), "budget.tokens"), (Budget(usd=0.5), "budget.usd"), (Budget(), "")]
)
def test_each_bound_of_a_budget_is_named_when_exhausted(budget: Budget, said: str) -> None:
    account = BudgetAccount()
    account.open(budget, Spent())
    account.take("a", Spent(), 0)
    assert account.exhausted() == ""
    account.take("a", Spent(3, 500, 0.5), 0)
    assert account.exhausted().partition(":")[0] == said


def test_lost_spending_is_restored_in_any_order() -> None:
    for driver_first in (True, False):
        account = BudgetAccount()
        if driver_first:
            account.restore(Budget(calls=100), Spent(calls=80))
        account.take("a", Spent(calls=50), 0)
        account.take("a", Spent(calls=55), 0)
        account.restore(Budget(calls=100), Spent(calls=80))
        assert 80 <= account.spent.calls <= 85


def test_a_budget_can_be_opened_again_for_the_next_run() -> None:
    account = BudgetAccount()
    account.open(Budget(calls=10), Spent())
    account.take("a", Spent(), 0)
    account.take("a", Spent(calls=10), 0)
    assert account.exhausted()
    account.open(Budget(calls=10), Spent(calls=3))
    assert not account.exhausted()
    assert account.spent.calls == 3


def test_shares_are_even_within_demand_and_caps() -> None:
    wants = [Want(100, 1, "a"), Want(2, 1, "a"), Want(100, 1, "b"), Want(0, 1, "a")]
    assert fair_shares(20, wants, {"a": 100, "b": 100}) == [9, 2, 9, 0]
    assert fair_shares(20, wants, {"a": 100, "b": 4}) == [14, 2, 4, 0]
    assert fair_shares(20, [Want(100, 3, "a"), Want(100, 1, "a")], {"a": 100}) == [15, 5]
    assert fair_shares(1, [Want(1, 1, "a", served=5), Want(1, 1, "a", served=4)], {"a": 9}) == [0, 1]
    assert fair_shares(5, [], {}) == []


def test_a_queue_serves_its_owners_in_turns() -> None:
    queue = FairQueue[int]()  # a turn is one item
    for number in range(4):
        queue.push("a", number)
    queue.push("b", 10)
    queue.push("c", 20)
    assert [queue.pop() for _ in range(3)] == [("a", 0), ("b", 10), ("c", 20)]
    queue.push("b", 11)
    assert queue.num_owners == 2
    assert [queue.pop()[1] for _ in range(4)] == [1, 11, 2, 3]
    assert not queue


def test_the_permits_of_a_dead_holder_are_granted_again() -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    pool = replace(POOL, budget_name="run", has_call_budget=True)
    limiter.account("run").open(Budget(calls=10), Spent())
    dead, other = Holder(limiter, "a", pool), Holder(limiter, "b", pool)
    dead.reports(demand=6, permits_wanted=6)
    dead.receives()
    other.reports(demand=10, permits_wanted=10)
    grant = other.receives()
    assert grant is not None
    assert grant.permits == 4
    clock.now += LEASE_S + 1
    other.reports(demand=10, permits_wanted=6)
    grant = other.receives()
    assert grant is not None
    assert grant.permits == 6


def test_lost_permits_are_granted_again() -> None:
    limiter = LimiterState(Clock())
    holder = Holder(limiter, "a", replace(POOL, budget_name="run", has_call_budget=True))
    limiter.account("run").open(Budget(calls=10), Spent())
    holder.reports(demand=10, permits_wanted=10)
    assert limiter.grant("a") is not None, "never arrives"
    renewed = limiter.renewal("a")
    holder.report = replace(holder.report, epoch=renewed.epoch, slots=renewed.slots)
    holder.reports(demand=10, permits_wanted=10)
    grant = holder.receives()
    assert grant is not None
    assert grant.permits == 10


def test_a_rate_applies_as_long_as_a_gate_has_it() -> None:
    clock = Clock()
    limiter = LimiterState(clock)
    slow = Holder(limiter, "a", replace(POOL, requests_per_min=6))
    slow.reports(demand=5, permits_wanted=5)
    slow.receives()
    slow.reports(leaving=True)
    fast, granted = Holder(limiter, "b", replace(POOL, requests_per_min=6000)), 0
    for _ in range(1000):
        clock.now += 0.06
        fast.reports(demand=1000, permits_wanted=1000)
        grant = fast.receives()
        granted += grant.permits if grant else 0
    assert granted > 5000
