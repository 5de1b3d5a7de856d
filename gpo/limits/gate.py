"""The gate before a process's calls to one model: what the limiter granted, handed out to those who wait in turn."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from uuid import uuid4

from gpo.context import current_caller
from gpo.errors import BudgetExhausted, OutOfReach, Part
from gpo.limits.fair_queue import FairQueue
from gpo.limits.limiter import Limiter
from gpo.limits.messages import LEASE_S, Grant, Pool, Report, Spent
from gpo.models.protocol import Usage
from gpo.process import PicklesFieldsOnly, ProcessIdentity

log = logging.getLogger(__name__)

_BUSY_S, _QUIET_S = 1.0, 4.0
"""Between two reports while there are calls, and while there are none; well below ``LEASE_S``."""
_IDLE_ROUNDS = 5
_TURN_ROUNDS = 4
"""How many rounds of calls a trajectory's turn lasts."""
_COALESCED_S = 0.005
"""What changes within so short a time is reported at once."""
SETTLES_S = 0.25
"""How long after the last call has ended the limiter is told what all of them cost."""
_PATIENCE_S = 60.0
"""How long the limiter may be out of reach."""
_SILENCE_S = 15.0
"""How much later than it was asked to it may reply."""
_FIRST_COMPLETION_TOKENS = 256


@dataclass(slots=True)
class Admission:
    """A request that was let through.

    Attributes:
        caller: whose request it is.
        expected_tokens: tokens that the request probably takes, prompt and completion together.
        version: version of the endpoint's limit when the request started.
        usage: what the request cost, once it is answered.
        was_refused: whether the endpoint said that there are too many requests.
        retry_after_s: how long the endpoint then asked to wait, in seconds.
    """

    caller: str
    expected_tokens: float
    version: int = 0
    usage: Usage | None = None
    was_refused: bool = False
    retry_after_s: float = 0.0

    def refused(self, retry_after_s: float) -> None:
        """Note that the endpoint said that there are too many requests."""
        self.was_refused, self.retry_after_s = True, retry_after_s


@dataclass(frozen=True)
class Gate(PicklesFieldsOnly):
    """Lets requests through as the limiter grants it; callers (see ``gpo.context``) take turns.

    It asks the limiter for many requests at once, so most pass without a message. A gate holds nothing before its first
    request.
    """

    limiter: Limiter
    pool: Pool

    async def enter(self, prompt_characters: int = 0, max_tokens: int | None = None) -> Admission:
        """Wait until a request may start; ``leave`` must follow.

        Args:
            prompt_characters: length of the prompt.
            max_tokens: bound on generated tokens, if there is one.

        Raises:
            BudgetExhausted: the budget allows no further request.
            OutOfReach: the limiter does not answer for a minute.
        """
        live = self._live
        expected_tokens = prompt_characters / 4 + live.expected_completion(max_tokens)
        admission = Admission(current_caller.get(), expected_tokens)
        await live.enter(admission)
        return admission

    def leave(self, admission: Admission) -> None:
        """End a request that ``enter`` let through; the admission says what became of it."""
        self._live.leave(admission)

    @property
    def _live(self) -> _Live:
        live: _Live | None = self.__dict__.get("_in_use")
        if live is None or live.loop is not asyncio.get_running_loop():
            before, live = live, _Live(self.limiter, self.pool)
            if before is not None:
                live.succeed(before)
            self.__dict__["_in_use"] = live
        return live


class _Live:
    """A gate in use; belongs to one event loop."""

    def __init__(self, limiter: Limiter, pool: Pool) -> None:
        self._limiter, self._pool, self._process = limiter, pool, ProcessIdentity.current()
        self.loop = self._loop = asyncio.get_running_loop()
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        self._num_waiting = 0
        self._under_way = Counter[str]()
        self._num_under_way = 0
        self._lease_until = self._paused_until = 0.0
        self._talking: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._tokens_each, self._completion_tokens = 0.0, 0.0
        self.version = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        """As a holder that the limiter has not heard of."""
        self._holder, self._number, self._epoch = uuid4().hex, 0, 0
        self._places = self._permits = self._received = self._returned = 0
        self._contended = self._is_exhausted = False
        self._spent = Spent()
        self._told = Report(self._holder, 0, self._pool)
        self._succeeded = self._refused = 0
        self._refused_version, self._retry_after_s, self._tokens_beyond = 0, 0.0, 0.0

    def succeed(self, before: _Live) -> None:
        """Go on as the same holder as one whose event loop has ended, which can give nothing back any more."""
        self._holder, self._number, self._epoch = before._holder, before._number, before._epoch
        self._spent, self._received = before._spent, before._received
        self._returned = self._received - self._spent.calls
        self._told = Report(self._holder, self._number, self._pool)

    def expected_completion(self, max_tokens: int | None) -> float:
        """Tokens that a reply is expected to have: as many as those before it, or what it may have at most."""
        return self._completion_tokens or min(max_tokens or _FIRST_COMPLETION_TOKENS, _FIRST_COMPLETION_TOKENS)

    async def enter(self, admission: Admission) -> None:
        """Wait for a place, and take it."""
        owner, expected_tokens = admission.caller, admission.expected_tokens
        self._tokens_each += (expected_tokens - self._tokens_each) * (0.1 if self._tokens_each else 1.0)
        if not self._num_waiting and self._may_begin():
            self._begin(owner)
            admission.version = self.version
            return
        place: asyncio.Future[None] = self._loop.create_future()
        self._waiting.push(owner, place)
        self._num_waiting += 1
        self._report_soon()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._num_waiting -= 1
            elif place.exception() is None:  # it was given a place in the same moment
                self._end(owner)
                self._permits += self._pool.needs_permits
                self._admit()
            raise
        admission.version = self.version

    def leave(self, admission: Admission) -> None:
        """Give the place up, with what became of the call."""
        self._end(admission.caller)
        used = 0
        if admission.usage is not None:
            usage = admission.usage
            # An endpoint that does not say what a reply took is believed to have taken what was expected.
            used = usage.prompt_tokens + usage.completion_tokens or round(admission.expected_tokens)
            self._spent += Spent(1, used, usage.cost_usd)
            self._succeeded += 1
            rate = 0.05 if self._completion_tokens else 1.0
            self._completion_tokens += (usage.completion_tokens - self._completion_tokens) * rate
        else:
            self._returned += self._pool.needs_permits
        self._tokens_beyond += used - admission.expected_tokens
        if admission.was_refused:
            # Not to be given to the next at once: it would be refused as well.
            self._places = min(self._places, max(1, self._num_under_way))
            if admission.version > self._refused_version:
                self._refused = 0
            self._refused += admission.version >= self._refused_version
            self._refused_version = max(self._refused_version, admission.version)
            self._retry_after_s = max(self._retry_after_s, admission.retry_after_s)
            self._report_soon(_COALESCED_S)
        self._admit()
        is_short = self._pool.needs_permits and self._permits < self._usable_permits // 2
        if is_short or self._has_places_to_give_back or (self._pool.has_budget and self._succeeded >= self._places):
            self._report_soon(_COALESCED_S)
        if not self._demand and self._settling is None:
            self._settling = self._loop.call_later(SETTLES_S, self._settle)

    @property
    def _demand(self) -> int:
        return self._num_under_way + self._num_waiting

    @property
    def _usable_permits(self) -> int:
        """As many as may be used soon: more would be kept from other gates, or grow old, while calls wait here."""
        rated = self._pool.requests_per_min is not None or self._pool.tokens_per_min is not None
        return min(self._num_waiting, self._places if rated else 2 * self._places)

    @property
    def _has_places_to_give_back(self) -> bool:
        """Whether others wait for places of which the limiter does not know that they are not needed here."""
        is_ending = self._told.places > max(self._places, self._num_under_way)
        return is_ending or (self._contended and self._places > self._demand and self._told.demand > self._demand)

    def _may_begin(self) -> bool:
        now = self._loop.time()
        return (
            self._num_under_way < self._places
            and not self._is_exhausted
            and (self._permits > 0 or not self._pool.needs_permits)
            and self._paused_until <= now < self._lease_until
        )

    def _begin(self, owner: str) -> None:
        self._num_under_way += 1
        self._under_way[owner] += 1
        self._permits -= self._pool.needs_permits

    def _end(self, owner: str) -> None:
        self._num_under_way -= 1
        self._under_way[owner] -= 1
        if not self._under_way[owner]:
            del self._under_way[owner]

    def _admit(self) -> None:
        while self._waiting and self._may_begin():
            owner, place = self._waiting.pop()
            if not place.done():
                self._num_waiting -= 1
                self._begin(owner)
                place.set_result(None)

    def _turn_away(self, reason: Exception) -> None:
        while self._waiting:
            _, place = self._waiting.pop()
            if not place.done():
                self._num_waiting -= 1
                place.set_exception(reason)

    # What is reported, and when.

    def _report(self) -> Report:
        usable = self._usable_permits if self._pool.needs_permits else 0
        if self._permits > usable:
            self._returned += self._permits - usable
            self._permits = usable
        self._number += 1
        self._told = Report(
            self._holder,
            self._number,
            self._pool,
            epoch=self._epoch,
            places=max(self._places, self._num_under_way),
            under_way=self._num_under_way,
            demand=self._demand,
            weight=max(len(self._under_way), self._waiting.num_owners, 1),
            permits_wanted=usable - self._permits,
            permits_received=self._received,
            tokens_each=self._tokens_each,
            succeeded=self._succeeded,
            refused=self._refused,
            refused_version=self._refused_version,
            retry_after_s=self._retry_after_s,
            permits_returned=self._returned,
            tokens_beyond=self._tokens_beyond,
            spent=self._spent,
            process=self._process,
        )
        self._succeeded = self._refused = 0
        self._retry_after_s, self._tokens_beyond = 0.0, 0.0
        return self._told

    def _take_back(self, report: Report) -> None:
        """What was not received is reported once more."""
        self._succeeded += report.succeeded
        self._refused += report.refused
        self._retry_after_s = max(self._retry_after_s, report.retry_after_s)
        self._tokens_beyond += report.tokens_beyond

    def _report_soon(self, delay_s: float = 0.0) -> None:
        """Tell what changed, if the limiter would not do the same without it."""
        if self._talking is None or self._talking.done():
            self._talking = asyncio.create_task(self._talk())
        elif self._telling is None and (delay_s or not self._is_wanting_told()):
            self._telling = asyncio.create_task(self._tell(delay_s))

    def _settle(self) -> None:
        """Tell what was spent, where nothing else is going to be told soon."""
        self._settling = None
        if not self._demand and self._told.spent != self._spent:
            self._report_soon(_COALESCED_S)

    def _is_wanting_told(self) -> bool:
        """Whether the limiter knows that we want more than we have."""
        if self._is_exhausted or (self._permits < self._usable_permits and not self._told.permits_wanted):
            return False
        return self._told.demand > self._places or self._told.permits_wanted > 0

    async def _tell(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)  # at 0, for all who ask in the same moment
        self._telling = None
        report = self._report()
        try:
            await self._limiter.tell(report)
        except ConnectionError:
            self._take_back(report)  # the exchange will notice, too, and try again

    async def _talk(self) -> None:
        try:
            await self._exchange_while_busy()
        except Exception as fault:  # one of ours: those who wait would wait for ever
            self._turn_away(fault)
            raise

    async def _exchange_while_busy(self) -> None:
        await asyncio.sleep(0)
        idle_rounds, heard, is_lost = 0, self._loop.time(), False
        while idle_rounds < _IDLE_ROUNDS:
            report, asked = self._report(), self._loop.time()
            try:
                wait_s = _BUSY_S if report.demand else _QUIET_S
                async with asyncio.timeout(wait_s + _SILENCE_S):
                    grant = await self._limiter.exchange(report, wait_s)
            except (ConnectionError, TimeoutError) as lost:
                self._take_back(report)
                said = str(lost) or "no answer"
                if self._demand and not is_lost:
                    is_lost = True
                    log.warning("the limiter is out of reach, and is asked again: %s", said)
                if self._loop.time() - heard > _PATIENCE_S:
                    heard = self._loop.time()  # whoever comes now may wait as long
                    self._turn_away(OutOfReach(Part.LIMITER, f"{said}, for {_PATIENCE_S:g} s"))
                await asyncio.sleep(0.5)
                continue
            heard, is_lost = self._loop.time(), False
            self._apply(grant, asked)
            idle_rounds = 0 if self._demand else idle_rounds + 1
        leaving = Report(
            self._holder, self._number + 1, self._pool, spent=self._spent,
            permits_returned=self._returned + self._permits, permits_received=self._received, leaving=True,
        )  # fmt: skip
        self._begin_anew()
        self._talking = None
        try:
            await self._limiter.tell(leaving)
        except ConnectionError:
            return  # it will be missed

    def _apply(self, grant: Grant, asked: float) -> None:
        self._lease_until = asked + LEASE_S
        if grant.epoch > self._epoch:
            self._epoch, self._places, self._contended = grant.epoch, grant.places, grant.contended
            self._waiting.turn = _TURN_ROUNDS * max(1, grant.places)
            self._is_exhausted = bool(grant.exhausted)
            self._permits += grant.permits
            self._received += grant.permits
            self.version = grant.version  # lower than before, where the limiter was started anew
        if grant.pause_s:
            self._paused_until = self._loop.time() + grant.pause_s
            self._loop.call_later(grant.pause_s, self._admit)
        if grant.exhausted:
            self._turn_away(BudgetExhausted(grant.exhausted))
        self._admit()
