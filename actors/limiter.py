"""The limiter as an actor: one for all runs on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Grant, Report, Spent

log = logging.getLogger(__name__)

_NAMESPACE = "gpo"
_VERSION = 2
"""Of what gates and limiter say to each other; programs of different versions do not share a limiter."""
_AT_ONCE = 100_000


@dataclass(frozen=True)
class LimiterActor:
    """The cluster's ``Limiter``, as any of its processes reaches it.

    The actor is started by whoever asks first, and ends with the run that this one belongs to; the others then start
    it anew, and it learns from them what is under way. Pickles.
    """

    name: str = f"limiter-{_VERSION}"

    def start(self) -> LimiterActor:
        """Have the actor started, without waiting for it; itself."""
        _ = self._actor
        return self

    async def exchange(self, report: Report, wait_s: float) -> Grant:
        """Take a report, and reply with what is new; see ``gpo.limits.limiter.Limiter``."""
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

    async def _reply(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await ask(self._actor)
        except RayTaskError:
            raise  # a fault of the limiter's own
        except (RayError, ValueError) as lost:
            # Dead, out of reach, or started by somebody who died while we looked for it: the next one who asks looks
            # for it anew, or starts it.
            self.__dict__.pop("_actor", None)
            said = str(lost).partition("\n")[0]
            # The gate warns where somebody waits: at the end of a run, it may go before those who listen to it.
            log.info("the limiter was not reached: %s", said)
            raise ConnectionError(said) from None

    @cached_property
    def _actor(self) -> Any:
        options: dict[str, Any] = {"name": self.name, "namespace": _NAMESPACE, "get_if_exists": True}
        actor_class: Any = _RemoteLimiter
        return actor_class.options(**options, num_cpus=0, max_restarts=-1, max_concurrency=_AT_ONCE).remote()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}


_RemoteLimiter = ray.remote(LocalLimiter)
