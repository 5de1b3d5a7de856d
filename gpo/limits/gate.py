"""The gate for a process's requests to one model: it distributes the limiter's grants fairly among callers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass
from uuid import uuid4

from gpo.errors import BudgetExhausted, OutOfReach, Part
from gpo.limits.fairness import FairQueue
from gpo.limits.limiter import Limiter
from gpo.limits.messages import LEASE_S, Grant, Pool, Report, Spent, Wait
from gpo.models.protocol import Usage
from gpo.runtime.context import current_caller
from gpo.runtime.process import PicklesFieldsOnly, ProcessIdentity

log = logging.getLogger(__name__)

_BUSY_S, _IDLE_S = 1.0, 4.0
"""Time between two reports with and without requests; well below ``LEASE_S``."""
_IDLE_ROUNDS = 5
"""Reports without requests before the gate leaves."""
_TURN_ROUNDS = 4
"""Rounds of requests in a caller's turn."""
_COALESCED_S = 0.005
"""Changes within this time go into one report."""
SETTLES_S = 0.25
"""Time between the end of the last request and the report of what all of them cost."""
_PATIENCE_S = 60.0
"""How long requests wait while the limiter cannot be reached."""
_REPLY_DELAY_S = 15.0
"""How late a reply of the limiter may be."""
_RECONNECT_S = 0.5
_DEFAULT_COMPLETION_TOKENS = 256


@dataclass(slots=True)
class Admission:
    """A request that was let through.

    Attributes:
        caller: whose request it is.
        expected_tokens: tokens that the request probably takes, prompt and completion together.
        version: version of the endpoint's limit when the request started.
        usage: what the request cost, once it is answered, or failed with a reply that is billed nevertheless.
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
    """Lets requests through as the limiter grants it; callers (see ``gpo.runtime.context``) take turns.

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
        state = self._state
        expected_tokens = prompt_characters / 4 + state.expected_completion(max_tokens)
        admission = Admission(current_caller.get(), expected_tokens)
        await state.enter(admission)
        return admission

    def leave(self, admission: Admission) -> None:
        """End a request that ``enter`` let through; the admission holds its outcome."""
        self._state.leave(admission)

    def wait_begins(self, call: object, reason: str, since_s: float) -> None:
        """Report until ``wait_ends`` that a call is repeated until the endpoint answers.

        Args:
            call: stands for the call; a later reason replaces an earlier one.
            reason: the last failure.
            since_s: monotonic time of the first failure.
        """
        self._state.wait_begins(call, reason, since_s)

    def wait_ends(self, call: object) -> None:
        """The call is answered or given up."""
        self._state.waits.pop(call, None)

    @property
    def _state(self) -> _GateState:
        state: _GateState | None = self.__dict__.get("_current_state")
        if state is None or state.loop is not asyncio.get_running_loop():
            earlier, state = state, _GateState(self.limiter, self.pool)
            if earlier is not None:
                state.continue_from(earlier)
            self.__dict__["_current_state"] = state
        return state


class _GateState:
    """A gate in use, in one event loop."""

    def __init__(self, limiter: Limiter, pool: Pool) -> None:
        self._limiter, self._pool, self._process = limiter, pool, ProcessIdentity.current()
        self.loop = asyncio.get_running_loop()
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        self._num_waiting = 0
        self._in_flight = Counter[str]()
        self._num_in_flight = 0
        self._lease_until = self._paused_until = 0.0
        self._exchanging: asyncio.Task[None] | None = None
        self._notifying: asyncio.Task[None] | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._tokens_each, self._completion_tokens = 0.0, 0.0
        self._version = 0
        self.waits: dict[object, tuple[float, str]] = {}
        self._reset()

    def _reset(self) -> None:
        """Become a holder that the limiter does not know."""
        self._holder, self._number, self._epoch = uuid4().hex, 0, 0
        self._slots = self._permits = self._received = self._returned = 0
        self._contended = self._is_exhausted = False
        self._spent = Spent()
        self._reported = Report(self._holder, 0, self._pool)
        self._succeeded = self._refused = 0
        self._refused_version, self._retry_after_s, self._tokens_beyond = 0, 0.0, 0.0

    def continue_from(self, earlier: _GateState) -> None:
        """Be the holder that another state was, whose event loop ended before it could return anything."""
        self._holder, self._number, self._epoch = earlier._holder, earlier._number, earlier._epoch
        self._spent, self._received = earlier._spent, earlier._received
        self._returned = self._received - self._spent.calls
        self._reported = Report(self._holder, self._number, self._pool)

    def expected_completion(self, max_tokens: int | None) -> float:
        """Expected tokens of a reply: the average of earlier ones, or at first a bound."""
        return self._completion_tokens or min(max_tokens or _DEFAULT_COMPLETION_TOKENS, _DEFAULT_COMPLETION_TOKENS)

    async def enter(self, admission: Admission) -> None:
        """Wait for a slot and, where needed, a permit; take both."""
        caller, expected_tokens = admission.caller, admission.expected_tokens
        self._tokens_each += (expected_tokens - self._tokens_each) * (0.1 if self._tokens_each else 1.0)
        if not self._num_waiting and self._may_start():
            self._start(caller)
        else:
            turn: asyncio.Future[None] = self.loop.create_future()
            self._waiting.push(caller, turn)
            self._num_waiting += 1
            self._report_soon()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():
                    self._num_waiting -= 1
                elif turn.exception() is None:  # it was let through at the same moment
                    self._end(caller)
                    self._permits += self._pool.needs_permits
                    self._admit()
                raise
        admission.version = self._version

    def leave(self, admission: Admission) -> None:
        """Return the slot, and account for what became of the request."""
        self._end(admission.caller)
        usage = admission.usage or Usage()
        used = usage.prompt_tokens + usage.completion_tokens
        if usage.requests:
            # If the endpoint does not report tokens, the expected number counts.
            used = used or round(admission.expected_tokens)
            self._succeeded += 1
            rate = 0.05 if self._completion_tokens else 1.0
            self._completion_tokens += (usage.completion_tokens - self._completion_tokens) * rate
        else:
            self._returned += self._pool.needs_permits
        self._spent += Spent(usage.requests, used, usage.cost_usd)
        self._tokens_beyond += used - admission.expected_tokens
        if admission.was_refused:
            # The next request must not take the slot at once: the endpoint would refuse it as well.
            self._slots = min(self._slots, max(1, self._num_in_flight))
            if admission.version > self._refused_version:
                self._refused = 0
            self._refused += admission.version >= self._refused_version
            self._refused_version = max(self._refused_version, admission.version)
            self._retry_after_s = max(self._retry_after_s, admission.retry_after_s)
            self._report_soon(_COALESCED_S)
        self._admit()
        is_short = self._pool.needs_permits and self._permits < self._usable_permits // 2
        if is_short or self._has_slots_to_return or (self._pool.has_budget and self._succeeded >= self._slots):
            self._report_soon(_COALESCED_S)
        if not self._demand and self._settling is None:
            self._settling = self.loop.call_later(SETTLES_S, self._settle)

    def wait_begins(self, call: object, reason: str, since_s: float) -> None:
        """Report that a call waits: the first one soon, the others with the report of the next second."""
        if not self.waits:
            self._report_soon(_COALESCED_S)
        self.waits[call] = (since_s, reason)

    @property
    def _longest_wait(self) -> Wait | None:
        since_s, reason = min(self.waits.values(), default=(0.0, ""))
        return Wait(reason, time.monotonic() - since_s) if self.waits else None

    @property
    def _demand(self) -> int:
        return self._num_in_flight + self._num_waiting

    @property
    def _usable_permits(self) -> int:
        """Permits that will be used soon. More would be withheld from other gates, or expire while requests wait."""
        rated = self._pool.requests_per_min is not None or self._pool.tokens_per_min is not None
        return min(self._num_waiting, self._slots if rated else 2 * self._slots)

    @property
    def _has_slots_to_return(self) -> bool:
        """Whether other gates wait for slots that this gate does not need, unknown to the limiter."""
        is_ending = self._reported.slots > max(self._slots, self._num_in_flight)
        is_surplus = self._slots > self._demand and self._reported.demand > self._demand
        return is_ending or (self._contended and is_surplus)

    def _may_start(self) -> bool:
        now = self.loop.time()
        return (
            self._num_in_flight < self._slots
            and not self._is_exhausted
            and (self._permits > 0 or not self._pool.needs_permits)
            and self._paused_until <= now < self._lease_until
        )

    def _start(self, caller: str) -> None:
        self._num_in_flight += 1
        self._in_flight[caller] += 1
        self._permits -= self._pool.needs_permits

    def _end(self, caller: str) -> None:
        self._num_in_flight -= 1
        self._in_flight[caller] -= 1
        if not self._in_flight[caller]:
            del self._in_flight[caller]

    def _admit(self) -> None:
        while self._waiting and self._may_start():
            caller, turn = self._waiting.pop()
            if not turn.done():
                self._num_waiting -= 1
                self._start(caller)
                turn.set_result(None)

    def _reject_waiting(self, reason: Exception) -> None:
        while self._waiting:
            _, turn = self._waiting.pop()
            if not turn.done():
                self._num_waiting -= 1
                turn.set_exception(reason)

    # Reports: what they contain, and when they are sent.

    def _report(self) -> Report:
        usable = self._usable_permits if self._pool.needs_permits else 0
        if self._permits > usable:
            self._returned += self._permits - usable
            self._permits = usable
        self._number += 1
        self._reported = Report(
            self._holder,
            self._number,
            self._pool,
            epoch=self._epoch,
            slots=max(self._slots, self._num_in_flight),
            in_flight=self._num_in_flight,
            demand=self._demand,
            weight=max(len(self._in_flight), self._waiting.num_owners, 1),
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
            longest_wait=self._longest_wait,
        )
        self._succeeded = self._refused = 0
        self._retry_after_s, self._tokens_beyond = 0.0, 0.0
        return self._reported

    def _restore(self, report: Report) -> None:
        """Put the changes of a report that was not received into the next one."""
        self._succeeded += report.succeeded
        self._refused += report.refused
        self._retry_after_s = max(self._retry_after_s, report.retry_after_s)
        self._tokens_beyond += report.tokens_beyond

    def _report_soon(self, delay_s: float = 0.0) -> None:
        """Report changes, unless the limiter would grant the same without the report."""
        exchanging = self._exchanging
        if exchanging is not None and exchanging.cancelling() and not (exchanging.done() and self._waiting):
            return  # the event loop ends, and would not wait for a new task
        if exchanging is None or exchanging.done():
            self._exchanging = asyncio.create_task(self._exchange())
        elif self._notifying is None and (delay_s or not self._is_demand_known()):
            self._notifying = asyncio.create_task(self._notify(delay_s))

    def _settle(self) -> None:
        """Report what was spent, if no other report will follow soon."""
        self._settling = None
        if not self._demand and self._reported.spent != self._spent:
            self._report_soon(_COALESCED_S)

    def _is_demand_known(self) -> bool:
        """Whether the limiter knows that this gate needs more than it has."""
        if self._is_exhausted or (self._permits < self._usable_permits and not self._reported.permits_wanted):
            return False
        return self._reported.demand > self._slots or self._reported.permits_wanted > 0

    async def _notify(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)  # even a delay of 0 merges what happens at the same moment
        self._notifying = None
        report = self._report()
        try:
            await self._limiter.notify(report)
        except ConnectionError:
            self._restore(report)  # the exchange meets the same error, and tries again

    async def _exchange(self) -> None:
        try:
            await self._exchange_while_busy()
        except Exception as fault:  # a bug; without this, waiting requests would never end
            self._reject_waiting(fault)
            raise
        except asyncio.CancelledError:  # likewise
            self._reject_waiting(OutOfReach(Part.LIMITER, "the event loop of this process ends"))
            raise

    async def _exchange_while_busy(self) -> None:
        await asyncio.sleep(0)
        idle_rounds, answered_at, is_lost = 0, self.loop.time(), False
        while idle_rounds < _IDLE_ROUNDS:
            report, sent_at = self._report(), self.loop.time()
            try:
                wait_s = _BUSY_S if report.demand or self.waits else _IDLE_S
                async with asyncio.timeout(wait_s + _REPLY_DELAY_S):
                    grant = await self._limiter.exchange(report, wait_s)
            except (ConnectionError, TimeoutError) as error:
                self._restore(report)
                reason = str(error) or "no answer"
                if self._demand and not is_lost:
                    is_lost = True
                    log.warning("the limiter is out of reach; trying again: %s", reason)
                if self.loop.time() - answered_at > _PATIENCE_S:
                    answered_at = self.loop.time()  # later requests may wait as long
                    self._reject_waiting(OutOfReach(Part.LIMITER, f"{reason}, for {_PATIENCE_S:g} s"))
                await asyncio.sleep(_RECONNECT_S)
                continue
            answered_at, is_lost = self.loop.time(), False
            self._apply(grant, sent_at)
            # A limiter in this process replies without a pause. Cancelled requests must learn of it before the next
            # report counts them, or else reports and replies would follow each other for ever.
            await asyncio.sleep(0)
            idle_rounds = 0 if self._demand or self.waits else idle_rounds + 1
        leaving = Report(
            self._holder, self._number + 1, self._pool, spent=self._spent,
            permits_returned=self._returned + self._permits, permits_received=self._received, leaving=True,
        )  # fmt: skip
        self._reset()
        self._exchanging = None
        try:
            await self._limiter.notify(leaving)
        except ConnectionError:
            return  # the lease runs out

    def _apply(self, grant: Grant, sent_at: float) -> None:
        self._lease_until = sent_at + LEASE_S
        if grant.epoch > self._epoch:
            self._epoch, self._slots, self._contended = grant.epoch, grant.slots, grant.contended
            self._waiting.turn = _TURN_ROUNDS * max(1, grant.slots)
            self._is_exhausted = bool(grant.exhausted)
            self._permits += grant.permits
            self._received += grant.permits
            self._version = grant.version  # lower than before if the limiter was restarted
        if grant.pause_s:
            self._paused_until = self.loop.time() + grant.pause_s
            self.loop.call_later(grant.pause_s, self._admit)
        if grant.exhausted:
            self._reject_waiting(BudgetExhausted(grant.exhausted))
        self._admit()
