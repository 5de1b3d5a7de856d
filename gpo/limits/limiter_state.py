"""The grants of every gate: the synchronous bookkeeping behind ``LocalLimiter``.

No slot is ever granted twice. A slot that is taken from one gate goes to another only after the first gate reported it
back, was silent for ``LEASE_S`` seconds, or is known to have died with its process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from gpo.limits.budget import BudgetAccount
from gpo.limits.fairness import Want, fair_shares
from gpo.limits.messages import LEASE_S, Grant, Pool, Report, Wait
from gpo.limits.rates import AdaptiveConcurrency, ModelRates
from gpo.runtime.process import ProcessIdentity

_PERMITS_EVERY_S = 0.05
"""Permits that a rate bounds are granted in batches, at most this often."""

_HALF_LIFE_S = 5.0
_CHECK_EVERY_S = 0.5
"""How often the gates' processes are checked."""


class LimiterState:
    """What is granted to every gate.

    Args:
        clock: seconds, never decreasing.
        is_successor: whether an earlier limiter may have granted slots that are still held. A report of such slots
            tells it as well. In its first ``LEASE_S`` seconds, a successor grants no more than what the gates report to
            hold: other gates, which have not reported yet, may hold the rest.
    """

    def __init__(self, clock: Callable[[], float], *, is_successor: bool = False) -> None:
        self._clock, self._checked = clock, -inf
        self._settled_at, self._is_successor = clock() + LEASE_S, is_successor
        self._gates: dict[str, _Gate] = {}
        self._endpoints: dict[str, _Endpoint] = {}
        self._rates: dict[tuple[str, str], ModelRates] = {}
        self._accounts: dict[str, BudgetAccount] = {}

    def uses(self, endpoint: str) -> bool:
        """Whether there is a gate before the endpoint."""
        self._expire(self._clock())
        return bool(self._endpoint(endpoint).gates)

    def divide(self, endpoint: str, clusters: int) -> bool:
        """Use one of so many equal parts of the endpoint's limits, rounded down, but at least 1; whether it is new."""
        known = self._endpoint(endpoint)
        if known.clusters == clusters:
            return False
        known.clusters = max(1, clusters)
        known.limits_changed()
        return True

    def account(self, name: str) -> BudgetAccount:
        """The account of a budget; created at first use."""
        return self._accounts.setdefault(name, BudgetAccount())

    def longest_wait(self, budget_name: str) -> Wait | None:
        """The longest wait that the gates of a budget have reported; ``None`` if none waits."""
        self._expire(self._clock())
        waits = [
            gate.longest_wait
            for gate in self._gates.values()
            if gate.longest_wait is not None and gate.pool.budget_name == budget_name
        ]
        return max(waits, key=lambda wait: wait.for_s, default=None)

    @property
    def is_idle(self) -> bool:
        """Whether no gate holds anything."""
        return not self._gates

    def take(self, report: Report) -> bool:
        """Take a report; whether it may change any grant."""
        now, pool = self._clock(), report.pool
        self._expire(now)
        endpoint = self._endpoint(pool.endpoint)
        gate = self._gates.get(report.holder)
        before = (endpoint.adaptive.limit, endpoint.adaptive.version)
        changed = endpoint.take(report)
        if pool.tokens_per_min is not None:
            self._rate(pool, now).settle(report.tokens_beyond, now)
        account = self.account(pool.budget_name)
        exhausted = account.exhausted()
        changed |= account.take(report.holder, report.spent, report.permits_returned)
        changed |= exhausted != account.exhausted()
        if report.leaving:
            self._drop(report.holder)
            return True
        if gate is None:
            # After a restart of the limiter, the gate reports what it holds.
            gate = _Gate(pool, report.process, epoch=report.epoch, held=report.slots, granted=report.slots)
            self._is_successor |= report.epoch > 0
            self._gates[report.holder] = endpoint.gates[report.holder] = gate
            endpoint.limits_changed()
        if report.number > gate.number and report.epoch == gate.epoch:
            account.received(report.holder, report.permits_received)
        changed |= gate.take(report, now)
        changed |= before != (endpoint.adaptive.limit, endpoint.adaptive.version)
        if report.refused and report.retry_after_s and not any(other.in_flight for other in endpoint.gates.values()):
            # Nothing is served, so fewer requests at once would not help; waiting may.
            endpoint.paused_until = max(endpoint.paused_until, now + report.retry_after_s)
            changed = True
        endpoint.is_stale |= changed
        return changed

    def grant(self, holder: str) -> Grant | None:
        """What is new for the holder; ``None`` if nothing is.

        Raises:
            KeyError: the holder left, or its lease expired.
        """
        now, gate = self._clock(), self._gates[holder]
        gate.seen = now  # it waits for this reply
        self._expire(now)
        endpoint = self._endpoint(gate.pool.endpoint)
        exhausted = self.account(gate.pool.budget_name).exhausted()
        if exhausted:
            is_news = gate.demand > gate.in_flight or not gate.granted_exhausted
            return self._granted(gate, exhausted=exhausted) if is_news else None
        slots = endpoint.slots_for(holder)
        if self._is_successor and now < self._settled_at:
            slots = min(slots, gate.granted)
        contended = endpoint.is_contended_for(holder)
        permits = self._permits(holder, gate, now)
        old = (
            gate.granted,
            gate.granted_contended,
            gate.granted_version,
            gate.granted_paused,
            gate.granted_exhausted,
        )
        new = (slots, contended, endpoint.adaptive.version, endpoint.paused_until, False)
        if old == new and not permits:
            return None
        gate.granted, gate.held = slots, max(gate.held, slots)
        gate.granted_contended, gate.granted_version, gate.granted_paused = new[1:4]
        endpoint.is_stale |= slots != old[0]
        return self._granted(gate, permits=permits)

    def renewal(self, holder: str) -> Grant:
        """Repeat the last grant, which renews its lease."""
        gate = self._gates[holder]
        return Grant(gate.epoch, gate.granted, 0, gate.granted_contended, gate.granted_version, 0.0, "")

    def next_s(self, holder: str) -> float:
        """Seconds until something new for the holder can arise from time alone."""
        gate, now = self._gates[holder], self._clock()
        if not gate.permits_wanted or not gate.pool.needs_permits:
            return inf
        return max(_PERMITS_EVERY_S, self._rate(gate.pool, now).wait_s(gate.tokens_each, now))

    def _granted(self, gate: _Gate, permits: int = 0, exhausted: str = "") -> Grant:
        gate.epoch += 1
        gate.permits_wanted = max(0, gate.permits_wanted - permits)
        gate.granted_exhausted = bool(exhausted)
        if exhausted:
            gate.demand = gate.permits_wanted = 0  # it rejects what waits
        pause_s = max(0.0, self._endpoint(gate.pool.endpoint).paused_until - self._clock())
        return Grant(
            gate.epoch, gate.granted, permits, gate.granted_contended, gate.granted_version, pause_s, exhausted
        )

    def _permits(self, holder: str, gate: _Gate, now: float) -> int:
        pool = gate.pool
        if not pool.needs_permits or not gate.permits_wanted or now < gate.next_permits:
            return 0
        rates = self._rate(pool, now)
        available, permits = rates.calls(gate.tokens_each, now), gate.permits_wanted
        if available != inf:
            rivals = {
                name: Want(other.permits_wanted, other.weight, "", int(other.permitted.at(now)))
                for name, other in self._gates.items()
                if (other.pool.endpoint, other.pool.model) == (pool.endpoint, pool.model)
                and (not other.pool.has_call_budget or self.account(other.pool.budget_name).can_permit())
            }
            if holder not in rivals:
                return 0
            shares = fair_shares(int(available), list(rivals.values()), {"": int(available)})
            permits = dict(zip(rivals, shares, strict=True))[holder]
            gate.next_permits = now + _PERMITS_EVERY_S
        if pool.has_call_budget:
            permits = self.account(pool.budget_name).permits(holder, permits)
        rates.take(permits, gate.tokens_each, now)
        gate.permitted.add(permits, now)
        return permits

    def _endpoint(self, name: str) -> _Endpoint:
        return self._endpoints.setdefault(name, _Endpoint())

    def _rate(self, pool: Pool, now: float) -> ModelRates:
        model = (pool.endpoint, pool.model)
        rates = self._rates.setdefault(model, ModelRates())
        # If gates have different rates for a model, the lowest applies as long as its gate exists.
        pools = [pool, *(gate.pool for gate in self._gates.values() if (gate.pool.endpoint, gate.pool.model) == model)]
        clusters = self._endpoint(pool.endpoint).clusters
        rates.update([_part_of(one, clusters) for one in pools] if clusters > 1 else pools, now)
        return rates

    def _expire(self, now: float) -> None:
        silent = {holder for holder, gate in self._gates.items() if now - gate.seen > LEASE_S}
        if now - self._checked > _CHECK_EVERY_S:
            self._checked = now
            processes = {gate.process for gate in self._gates.values() if gate.process is not None}
            gone = {process for process in processes if process.has_certainly_ended}
            silent |= {holder for holder, gate in self._gates.items() if gate.process in gone}
        for holder in silent:
            self._drop(holder)

    def _drop(self, holder: str) -> None:
        gate = self._gates.pop(holder, None)
        if gate is not None:
            self.account(gate.pool.budget_name).forget(holder)
            endpoint = self._endpoint(gate.pool.endpoint)
            del endpoint.gates[holder]
            endpoint.limits_changed()


def _part_of(pool: Pool, clusters: int) -> Pool:
    """The pool with one of so many equal parts of its limits."""

    def part(limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // clusters)

    return replace(
        pool,
        concurrency=max(1, pool.concurrency // clusters),
        endpoint_concurrency=max(1, pool.endpoint_concurrency // clusters),
        requests_per_min=part(pool.requests_per_min),
        tokens_per_min=part(pool.tokens_per_min),
    )


@dataclass(slots=True)
class _Recently:
    """An amount that decays, so that a late gate does not catch up on everything that others got before."""

    amount: float = 0.0
    _as_of: float = 0.0

    def at(self, now: float) -> float:
        """The decayed amount."""
        decay: float = 0.5 ** (max(0.0, now - self._as_of) / _HALF_LIFE_S)
        return self.amount * decay

    def add(self, amount: float, now: float) -> None:
        """Add to the amount."""
        self.amount, self._as_of = self.at(now) + amount, now


@dataclass(slots=True)
class _Gate:
    """What is known about a gate: it may use ``granted`` slots, and may still be using ``held``."""

    pool: Pool
    process: ProcessIdentity | None = None
    epoch: int = 0
    held: int = 0
    granted: int = 0
    number: int = -1
    in_flight: int = 0
    demand: int = 0
    weight: int = 1
    served: _Recently = field(default_factory=lambda: _Recently())
    permitted: _Recently = field(default_factory=lambda: _Recently())
    seen: float = 0.0
    permits_wanted: int = 0
    tokens_each: float = 0.0
    next_permits: float = 0.0
    granted_contended: bool = False
    granted_version: int = -1
    granted_paused: float = 0.0
    granted_exhausted: bool = False
    longest_wait: Wait | None = None

    def take(self, report: Report, now: float) -> bool:
        """Take a report unless a newer one came before; whether it changes anything."""
        self.served.add(report.succeeded, now)
        self.seen = now
        if report.number <= self.number:
            return False
        before = (self.held, self.granted, self.demand, self.weight, self.permits_wanted)
        self.number, self.in_flight, self.longest_wait = report.number, report.in_flight, report.longest_wait
        self.demand, self.weight = report.demand, max(1, report.weight)
        if report.epoch == self.epoch:  # otherwise, a grant is still on its way
            self.held = report.slots
            self.granted = min(self.granted, self.held)
            self.permits_wanted, self.tokens_each = report.permits_wanted, report.tokens_each
        return before != (self.held, self.granted, self.demand, self.weight, self.permits_wanted)


@dataclass(slots=True)
class _Endpoint:
    """The gates before an endpoint, and their limits."""

    adaptive: AdaptiveConcurrency = field(default_factory=lambda: AdaptiveConcurrency(1))
    gates: dict[str, _Gate] = field(default_factory=dict[str, _Gate])
    paused_until: float = 0.0
    is_stale: bool = True
    clusters: int = 1
    _caps: dict[str, int] = field(default_factory=dict[str, int])
    _targets: dict[str, int] = field(default_factory=dict[str, int])
    _is_new: bool = True

    def take(self, report: Report) -> bool:
        """Apply a report about the endpoint; returns whether the endpoint was overloaded."""
        self.adaptive.succeeded(report.succeeded)
        self.adaptive.refused(report.refused, report.refused_version)
        return bool(report.refused)

    def limits_changed(self) -> None:
        """Compute the limits again; if gates have different ones, the lowest applies."""
        self.is_stale = True
        pools = [gate.pool for gate in self.gates.values()]
        if not pools:
            return
        if self.clusters > 1:
            pools = [_part_of(pool, self.clusters) for pool in pools]
        ceiling = min(pool.endpoint_concurrency for pool in pools)
        if self._is_new:
            self.adaptive, self._is_new = AdaptiveConcurrency(ceiling), False
        self.adaptive.set_ceiling(ceiling)
        self._caps = {}
        for pool in pools:
            self._caps[pool.group] = min(pool.concurrency, self._caps.get(pool.group, pool.concurrency))

    def slots_for(self, holder: str) -> int:
        """Slots that the gate may have now: its share, as far as other gates have returned their surplus."""
        gate, target = self.gates[holder], self._shares()[holder]
        if target <= gate.granted:
            return target
        held = Counter[str]()
        for other in self.gates.values():
            held[other.pool.group] += other.held
        free = min(self.adaptive.limit - held.total(), self._caps[gate.pool.group] - held[gate.pool.group])
        return max(gate.granted, min(target, gate.held + max(0, free)))

    def is_contended_for(self, holder: str) -> bool:
        """Whether another gate has fewer slots than it could use."""
        return any(gate.demand > gate.granted for name, gate in self.gates.items() if name != holder)

    def _shares(self) -> dict[str, int]:
        if self.is_stale:
            limit = self.adaptive.limit
            # With fewer slots than gates, those that were served least come first; otherwise slots stay where they are.
            wanting = Counter(gate.pool.group for gate in self.gates.values() if gate.demand > 0)
            scarce = wanting.total() > limit or any(wanting[group] > cap for group, cap in self._caps.items())
            wants = [
                Want(gate.demand, gate.weight, gate.pool.group, int(gate.served.at(gate.seen)) if scarce else 0)
                for gate in self.gates.values()
            ]
            self._targets = dict(zip(self.gates, fair_shares(limit, wants, self._caps), strict=True))
            self.is_stale = scarce  # the served amounts change with every report
        return self._targets
