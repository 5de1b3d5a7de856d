"""Who may call what, and how much: the bookkeeping behind ``LocalLimiter``, without waiting for anything.

Places at an endpoint are never handed out twice: what is taken from one gate goes to another only when the first has
said that it is back, was not heard of for ``LEASE_S`` seconds, or has died before the limiter's eyes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from gpo.limits.budget import Account
from gpo.limits.fair_queue import Want, fair_shares
from gpo.limits.messages import LEASE_S, Grant, Pool, Report
from gpo.limits.rates import AdaptiveConcurrency, ModelRates
from gpo.process import ProcessIdentity

_PERMITS_EVERY_S = 0.05
"""Permits that a rate lets trickle are handed out in batches, so often at most."""

_HALF_LIFE_S = 5.0
_LOOK_EVERY_S = 0.5
"""How often it is looked whether the gates' processes are still there."""


class LimiterState:
    """What is granted to every gate.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._looked = clock, -inf
        self._gates: dict[str, _Gate] = {}
        self._endpoints: dict[str, _Endpoint] = {}
        self._rates: dict[tuple[str, str], ModelRates] = {}
        self._accounts: dict[str, Account] = {}

    def account(self, name: str) -> Account:
        """The account of this name, a new one where there was none."""
        return self._accounts.setdefault(name, Account())

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds anything."""
        return not self._gates

    def take(self, report: Report) -> bool:
        """Take a report; whether it may change what anybody is granted."""
        now, pool = self._clock(), report.pool
        self._expire(now)
        endpoint = self._endpoint(pool.endpoint)
        gate = self._gates.get(report.holder)
        before = (endpoint.adaptive.limit, endpoint.adaptive.version)
        changed = endpoint.take(report)
        if pool.tokens_per_min is not None:
            self._rate(pool, now).settle(report.tokens_beyond, now)
        account = self.account(pool.account)
        exhausted = account.exhausted()
        changed |= account.take(report.holder, report.spent, report.permits_returned)
        changed |= exhausted != account.exhausted()
        if report.leaving:
            self._drop(report.holder)
            return True
        if gate is None:
            # One that outlived a limiter says what it holds.
            gate = _Gate(pool, report.process, epoch=report.epoch, held=report.places, told=report.places)
            self._gates[report.holder] = endpoint.gates[report.holder] = gate
            endpoint.limits_changed()
        if report.number > gate.number and report.epoch == gate.epoch:
            account.received(report.holder, report.permits_received)
        changed |= gate.take(report, now)
        changed |= before != (endpoint.adaptive.limit, endpoint.adaptive.version)
        if report.refused and report.retry_after_s and not any(other.under_way for other in endpoint.gates.values()):
            # Nothing is served at all: not one too many at once, but too much by now.
            endpoint.paused_until = max(endpoint.paused_until, now + report.retry_after_s)
            changed = True
        endpoint.targets_are_old |= changed
        return changed

    def grant(self, holder: str) -> Grant | None:
        """What is new for the holder; ``None`` where nothing is.

        Raises:
            KeyError: it was not heard of for long.
        """
        now, gate = self._clock(), self._gates[holder]
        gate.seen = now  # it waits for this
        self._expire(now)
        endpoint = self._endpoint(gate.pool.endpoint)
        exhausted = self.account(gate.pool.account).exhausted()
        if exhausted:
            asks = gate.demand > gate.under_way or not gate.exhausted_told
            return self._granted(gate, exhausted=exhausted) if asks else None
        places = endpoint.places_for(holder)
        contended = endpoint.is_contended_for(holder)
        permits = self._permits(holder, gate, now)
        old = (gate.told, gate.contended_told, gate.version_told, gate.paused_told, gate.exhausted_told)
        new = (places, contended, endpoint.adaptive.version, endpoint.paused_until, False)
        if old == new and not permits:
            return None
        gate.told, gate.held = places, max(gate.held, places)
        gate.contended_told, gate.version_told, gate.paused_told = new[1:4]
        endpoint.targets_are_old |= places != old[0]
        return self._granted(gate, permits=permits)

    def renewal(self, holder: str) -> Grant:
        """The last grant once more: it holds for longer."""
        gate = self._gates[holder]
        return Grant(gate.epoch, gate.told, 0, gate.contended_told, gate.version_told, 0.0, "")

    def next_s(self, holder: str) -> float:
        """Seconds until time alone may bring something new for the holder."""
        gate, now = self._gates[holder], self._clock()
        if not gate.permits_wanted or not gate.pool.needs_permits:
            return inf
        return max(_PERMITS_EVERY_S, self._rate(gate.pool, now).wait_s(gate.tokens_each, now))

    def _granted(self, gate: _Gate, permits: int = 0, exhausted: str = "") -> Grant:
        gate.epoch += 1
        gate.permits_wanted = max(0, gate.permits_wanted - permits)
        gate.exhausted_told = bool(exhausted)
        if exhausted:
            gate.demand = gate.permits_wanted = 0  # it gives up
        pause_s = max(0.0, self._endpoint(gate.pool.endpoint).paused_until - self._clock())
        return Grant(gate.epoch, gate.told, permits, gate.contended_told, gate.version_told, pause_s, exhausted)

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
                and (not other.pool.has_call_budget or self.account(other.pool.account).can_permit())
            }
            if holder not in rivals:
                return 0
            shares = fair_shares(int(available), list(rivals.values()), {"": int(available)})
            permits = dict(zip(rivals, shares, strict=True))[holder]
            gate.next_permits = now + _PERMITS_EVERY_S
        if pool.has_call_budget:
            permits = self.account(pool.account).permits(holder, permits)
        rates.take(permits, gate.tokens_each, now)
        gate.permitted.add(permits, now)
        return permits

    def _endpoint(self, name: str) -> _Endpoint:
        return self._endpoints.setdefault(name, _Endpoint())

    def _rate(self, pool: Pool, now: float) -> ModelRates:
        model = (pool.endpoint, pool.model)
        rates = self._rates.setdefault(model, ModelRates())
        # Where gates name different rates of a model, the lowest holds for as long as its gate is there.
        pools = [pool, *(gate.pool for gate in self._gates.values() if (gate.pool.endpoint, gate.pool.model) == model)]
        rates.hold_to(pools, now)
        return rates

    def _expire(self, now: float) -> None:
        silent = {holder for holder, gate in self._gates.items() if now - gate.seen > LEASE_S}
        if now - self._looked > _LOOK_EVERY_S:
            self._looked = now
            processes = {gate.process for gate in self._gates.values() if gate.process is not None}
            gone = {process for process in processes if process.has_certainly_ended}
            silent |= {holder for holder, gate in self._gates.items() if gate.process in gone}
        for holder in silent:
            self._drop(holder)

    def _drop(self, holder: str) -> None:
        gate = self._gates.pop(holder, None)
        if gate is not None:
            self.account(gate.pool.account).forget(holder)
            endpoint = self._endpoint(gate.pool.endpoint)
            del endpoint.gates[holder]
            endpoint.limits_changed()


@dataclass(slots=True)
class _Recently:
    """How much, with what is past counting ever less: who comes late shall not be given all that others had before."""

    amount: float = 0.0
    _as_of: float = 0.0

    def at(self, now: float) -> float:
        """The amount as it counts now."""
        decay: float = 0.5 ** (max(0.0, now - self._as_of) / _HALF_LIFE_S)
        return self.amount * decay

    def add(self, amount: float, now: float) -> None:
        """So much more."""
        self.amount, self._as_of = self.at(now) + amount, now


@dataclass(slots=True)
class _Gate:
    """What is known of a gate: ``told`` places it may use, ``held`` ones it may still be using."""

    pool: Pool
    process: ProcessIdentity | None = None
    epoch: int = 0
    held: int = 0
    told: int = 0
    number: int = -1
    under_way: int = 0
    demand: int = 0
    weight: int = 1
    served: _Recently = field(default_factory=lambda: _Recently())
    permitted: _Recently = field(default_factory=lambda: _Recently())
    seen: float = 0.0
    permits_wanted: int = 0
    tokens_each: float = 0.0
    next_permits: float = 0.0
    contended_told: bool = False
    version_told: int = -1
    paused_told: float = 0.0
    exhausted_told: bool = False

    def take(self, report: Report, now: float) -> bool:
        """What it says of itself, unless it has said something newer; whether that is something new."""
        self.served.add(report.succeeded, now)
        self.seen = now
        if report.number <= self.number:
            return False
        before = (self.held, self.told, self.demand, self.weight, self.permits_wanted)
        self.number, self.under_way = report.number, report.under_way
        self.demand, self.weight = report.demand, max(1, report.weight)
        if report.epoch == self.epoch:  # else it has not heard yet what it was given since
            self.held = report.places
            self.told = min(self.told, self.held)
            self.permits_wanted, self.tokens_each = report.permits_wanted, report.tokens_each
        return before != (self.held, self.told, self.demand, self.weight, self.permits_wanted)


@dataclass(slots=True)
class _Endpoint:
    """The gates before an endpoint, and what they may have of it together."""

    adaptive: AdaptiveConcurrency = field(default_factory=lambda: AdaptiveConcurrency(1))
    gates: dict[str, _Gate] = field(default_factory=dict[str, _Gate])
    paused_until: float = 0.0
    targets_are_old: bool = True
    _caps: dict[str, int] = field(default_factory=dict[str, int])
    _targets: dict[str, int] = field(default_factory=dict[str, int])
    _is_new: bool = True

    def take(self, report: Report) -> bool:
        """What a report says of the endpoint."""
        self.adaptive.succeeded(report.succeeded)
        self.adaptive.refused(report.refused, report.refused_version)
        return bool(report.refused)

    def limits_changed(self) -> None:
        """Work out the limits anew: where gates name different ones, the lowest holds."""
        self.targets_are_old = True
        pools = [gate.pool for gate in self.gates.values()]
        if not pools:
            return
        ceiling = min(pool.endpoint_concurrency for pool in pools)
        if self._is_new:
            self.adaptive, self._is_new = AdaptiveConcurrency(ceiling), False
        self.adaptive.set_ceiling(ceiling)
        self._caps = {}
        for pool in pools:
            self._caps[pool.group] = min(pool.concurrency, self._caps.get(pool.group, pool.concurrency))

    def places_for(self, holder: str) -> int:
        """Places that the gate may have now: its share, as far as others have given back what is beyond theirs."""
        gate, target = self.gates[holder], self._shares()[holder]
        if target <= gate.told:
            return target
        held = Counter[str]()
        for other in self.gates.values():
            held[other.pool.group] += other.held
        free = min(self.adaptive.limit - held.total(), self._caps[gate.pool.group] - held[gate.pool.group])
        return max(gate.told, min(target, gate.held + max(0, free)))

    def is_contended_for(self, holder: str) -> bool:
        """Whether another gate has fewer places than it could use."""
        return any(gate.demand > gate.told for name, gate in self.gates.items() if name != holder)

    def _shares(self) -> dict[str, int]:
        if self.targets_are_old:
            limit = self.adaptive.limit
            # Where there is no place for each, those go first that were served least; else who has what stays.
            wanting = Counter(gate.pool.group for gate in self.gates.values() if gate.demand > 0)
            scarce = wanting.total() > limit or any(wanting[group] > cap for group, cap in self._caps.items())
            wants = [
                Want(gate.demand, gate.weight, gate.pool.group, int(gate.served.at(gate.seen)) if scarce else 0)
                for gate in self.gates.values()
            ]
            self._targets = dict(zip(self.gates, fair_shares(limit, wants, self._caps), strict=True))
            self.targets_are_old = scarce  # what was served changes with every report
        return self._targets
