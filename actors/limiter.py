"""The limiter as an actor: one for all runs on a cluster. It also keeps what processes report of their counts."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from actors.metrics.totals import ProcessReport, ReportStore
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Grant, Report, Spent, Wait
from gpo.limits.sharing import SharedLimits
from gpo.runtime.process import ProcessIdentity
from gpo.text import first_line

log = logging.getLogger(__name__)

_NAMESPACE = "gpo"
_VERSION = 5
"""Version of the messages between limiter and callers; programs of different versions do not share a limiter."""
_AT_ONCE = 100_000
_ANSWER_S = 5.0


@dataclass(frozen=True)
class LimiterActor:
    """The ``Limiter`` of the whole cluster. Pickles.

    The first process that uses it starts the actor, and the actor ends with the run of that process. The other runs
    then start another one, and their gates and processes report their state to it.
    """

    name: str = f"limiter-{_VERSION}"

    def start(self) -> LimiterActor:
        """Start the actor unless it is running, without waiting for it; returns itself."""
        _ = self._actor
        return self

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        """Take a report, and reply with what changed; see ``gpo.limits.limiter.Limiter``."""
        return cast("Grant", await self._reply(lambda actor: actor.exchange.remote(report, wait_s)))

    async def notify(self, report: Report) -> None:
        """Take a report; see ``gpo.limits.limiter.Limiter``."""
        await self._reply(lambda actor: actor.notify.remote(report))

    async def open_budget(self, name: str, budget: Budget, spent: Spent) -> None:
        """Bound what may be spent; see ``gpo.limits.limiter.Limiter``."""
        await self._reply(lambda actor: actor.open_budget.remote(name, budget, spent))

    async def budget_spent(self, name: str, budget: Budget, at_least: Spent) -> Spent:
        """What was spent; see ``gpo.limits.limiter.Limiter``."""
        return cast("Spent", await self._reply(lambda actor: actor.budget_spent.remote(name, budget, at_least)))

    async def longest_wait(self, budget_name: str) -> Wait | None:
        """The longest wait for an endpoint; see ``gpo.limits.limiter.Limiter``."""
        return cast("Wait | None", await self._reply(lambda actor: actor.longest_wait.remote(budget_name)))

    def report_counts(self, report: ProcessReport) -> bool:
        """Keep the counts of a process; see ``ReportStore.take``. Blocks: call it in a thread, not in the event loop.

        Does not start the actor, which would end with the process that reports.

        Raises:
            ConnectionError: the limiter is not running, or cannot be reached now.
        """
        return bool(self._result(lambda: self._running().report_counts.remote(report)))

    def newest_counts(self, session: str, known: Mapping[ProcessIdentity, int]) -> list[ProcessReport]:
        """What the processes of a session have counted; see ``ReportStore.newest``. Blocks, and raises likewise."""
        return cast("list[ProcessReport]", self._result(lambda: self._running().newest_counts.remote(session, known)))

    async def _reply(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await ask(self._actor)
        except RayTaskError:
            raise  # a fault in the limiter
        except (RayError, ValueError) as lost:
            raise self._unreached(lost) from None

    def _result(self, ask: Callable[[], ray.ObjectRef[Any]]) -> Any:
        try:
            # ``ray.get`` warns in the process of an async actor, in any thread.
            return ask().future().result(_ANSWER_S)
        except RayTaskError:
            raise
        except TimeoutError:  # slow, and not dead: the handle may be what keeps the actor alive
            raise ConnectionError(f"no answer within {_ANSWER_S:g} s") from None
        except (RayError, ValueError) as lost:
            raise self._unreached(lost) from None

    def _unreached(self, lost: Exception) -> ConnectionError:
        """Forget the actor: it is dead, out of reach, or was started by a process that has died since.

        The next call looks for the actor again, or starts it.
        """
        self.__dict__.pop("_actor", None)
        reason = first_line(lost)
        # Not a warning: the gate warns if calls wait, and at the end of a run the limiter may end before its callers.
        log.info("the limiter was not reached: %s", reason)
        return ConnectionError(reason)

    def _running(self) -> Any:
        if "_actor" not in self.__dict__:
            self.__dict__["_actor"] = ray.get_actor(self.name, namespace=_NAMESPACE)
        return self._actor

    @cached_property
    def _actor(self) -> Any:
        options: dict[str, Any] = {"name": self.name, "namespace": _NAMESPACE, "get_if_exists": True}
        actor_class: Any = _RemoteLimiter
        return actor_class.options(**options, num_cpus=0, max_restarts=-1, max_concurrency=_AT_ONCE).remote()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}


class SharedLimiter(LocalLimiter):
    """The class of the actor: a limiter that keeps reports of counts, and may share limits with other clusters."""

    def __init__(self) -> None:
        was_restarted = ray.is_initialized() and ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(is_successor=bool(was_restarted))
        self._reports, self._shared = ReportStore(), SharedLimits(self)

    def _take(self, report: Report) -> None:
        super()._take(report)
        self._shared.take(report)

    async def report_counts(self, report: ProcessReport) -> bool:
        return self._reports.take(report)

    async def newest_counts(self, session: str, known: Mapping[ProcessIdentity, int]) -> list[ProcessReport]:
        return self._reports.newest(session, known)


_RemoteLimiter = ray.remote(SharedLimiter)
