"""One sitting of a sweep: this process takes trials until there are none, side by side, and then confirms the best."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from optuna.trial import FrozenTrial

from actors.folder import Folder
from actors.lease import LeaseLost
from cluster.results.outputs import RunRecord
from cluster.session.budget import Spending
from cluster.session.interrupts import run_interruptibly
from cluster.session.preflight import explained_refusal
from cluster.session.session import Services
from cluster.sweep.confirmation import confirm, confirmation_document, confirmation_key
from cluster.sweep.loading import SweepConfig
from cluster.sweep.metrics import SweepMetrics
from cluster.sweep.pool import ActorPool
from cluster.sweep.progress import SweepView
from cluster.sweep.study import Claim, SharedStudy, unsettled_s
from cluster.sweep.trial import TrialNews, run_trial
from cluster.sweep.winner import best_trial
from gpo.concurrency import gather
from gpo.errors import BudgetExhausted, ModelRefused, StorageError
from gpo.limits.gate import SETTLES_S
from gpo.limits.messages import Spent

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_STORAGE_WAITS_S = (1.0, 4.0, 10.0)
_LOOK_S = 2.0
"""How often others' trials are looked at while there is nothing to begin."""
_BEATS_A_LEASE = 5
_MOST_BEAT_S = 10.0


@dataclass(slots=True)
class Ending:
    """What a sitting came to.

    Attributes:
        status: ``completed`` once all trials of all processes are over and, where asked for, the best is confirmed.
        ended_by: which budget is exhausted, in words; empty while none is.
        failures: trials that failed in this sitting, with their errors.
    """

    status: str = "running"
    ended_by: str = ""
    failures: list[str] = field(default_factory=list[str])


class SweepSession:
    """What this process does for a study.

    Args:
        folder: of the sweep.
        earlier_s: seconds of earlier sittings in this folder.
        saved: called every few seconds, so that a process that is killed leaves what is known.
    """

    def __init__(
        self,
        config: SweepConfig,
        study: SharedStudy,
        folder: Folder,
        *,
        earlier_s: float,
        view: SweepView,
        saved: Callable[[SweepSession], None],
    ) -> None:
        self._config, self._study, self._folder, self._view, self._saved = config, study, folder, view, saved
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="study")
        self._earlier_s, self._began = earlier_s, time.monotonic()
        self._record = RunRecord(config.study, started_at=time.time())
        self._others = self._before = Spent()
        self._running: dict[int, tuple[Claim, asyncio.Task[Any]]] = {}
        self._metrics: SweepMetrics | None = None
        self.ending = Ending()

    @property
    def wall_s(self) -> float:
        """Seconds, of earlier sittings as well."""
        return self._earlier_s + time.monotonic() - self._began

    @property
    def spent(self) -> Spent:
        """By all processes and sittings."""
        return self._others + self._own

    @property
    def _own(self) -> Spent:
        return self._record.reported - self._before

    def execute(self, services: Callable[[], Services]) -> Ending:
        """Work to the end, whatever the end is; trials that are not over wait for the next sitting.

        Args:
            services: what the work is done with; asked for once there is any.

        Raises:
            ConfigError: an endpoint refuses the key or the model.
            GPOError: the sweep could not go on.
            KeyboardInterrupt: it was told to stop.
        """
        try:
            self._call_now(self._beat)
            if self._call_now(self._has_work):
                run_interruptibly(self._work(services()))
            self.ending.status = "completed"
        except BudgetExhausted as exhausted:
            self.ending.status, self.ending.ended_by = "budget_exhausted", str(exhausted)
        except KeyboardInterrupt:
            self.ending.status = "interrupted"
            raise
        except ModelRefused as refusal:
            self.ending.status = "failed"
            raise explained_refusal(self._config.base, refusal) from None
        except BaseException:
            self.ending.status = "failed"
            raise
        finally:
            self._leave()
        return self.ending

    def _has_work(self) -> bool:
        return not self._study.is_over() or self._unconfirmed() is not None

    def _unconfirmed(self) -> FrozenTrial | None:
        """The best trial, where it is to be confirmed and was not."""
        best = best_trial(self._study.trials()) if self._config.holdout is not None else None
        known = self._study.confirmation
        if best is None:
            return None
        wanted = {"trial": best.number, "key": confirmation_key(self._config, dict(best.params))}
        return None if known is not None and wanted.items() <= known.items() else best

    def _leave(self) -> None:
        with suppress(StorageError):
            self._call_now(self._study.release)
            self._call_now(lambda: self._study.processes.beat(self._own, ended=True))
            self._call_now(self._measure)
        if self._metrics is not None:
            self._metrics.end()
        self._thread.shutdown()

    async def _work(self, services: Services) -> None:
        budget = self._config.base.budget
        self._others = self._before = await self._call(self._study.processes.others_spent)
        self._record.reported = self._before
        account = Spending(budget, services.access, self._record)
        left_s = account.left_s(self.wall_s)
        await account.open()
        self._metrics = SweepMetrics(services.metrics, budget)
        await self._call(self._measure)
        pool = ActorPool(self._config.base, services)
        beating = asyncio.create_task(self._beats(account))
        try:
            async with asyncio.timeout(left_s) as time_left:
                working = asyncio.create_task(self._to_end(services, pool))
                try:
                    await asyncio.wait([working, beating], return_when=asyncio.FIRST_COMPLETED)
                    if beating.done():
                        beating.result()  # over budget, or the storage is gone
                    await working
                finally:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
        except TimeoutError:
            if not time_left.expired():
                raise
            raise BudgetExhausted(f"budget.wall_s: {budget.wall_s:g} s are over") from None
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            try:
                await asyncio.sleep(2 * SETTLES_S)  # the last calls are accounted for before those who made them end
            finally:
                await pool.end()
                await account.look()

    async def _to_end(self, services: Services, pool: ActorPool) -> None:
        await gather(self._take_trials(services, pool) for _ in range(self._config.section.max_parallel_trials))
        if self._config.holdout is not None:
            await self._confirm(services, pool)

    async def _take_trials(self, services: Services, pool: ActorPool) -> None:
        """Run one trial after the other, until all trials of all processes are over."""
        while True:
            claim = await self._call(self._study.claim)
            if claim is None:
                await pool.last()
                claim = await self._taken_over()
            if claim is None:
                if await self._call(self._study.is_over):
                    return
                # Others are at work. Should they die, somebody must go on with theirs.
                await asyncio.sleep(_LOOK_S)
                continue
            await self._run(claim, services, pool)

    async def _taken_over(self) -> Claim | None:
        for number in await self._call(self._study.abandoned):
            if await self._call(self._study.bid, number):
                await asyncio.sleep(unsettled_s(self._config.section.lease_s))
                claim = await self._call(self._study.settled, number)
                if claim is not None and claim.number not in self._running:
                    return claim
        return None

    async def _run(self, claim: Claim, services: Services, pool: ActorPool) -> None:
        def announce(news: TrialNews) -> None:
            if news.outcome == "failed":
                self.ending.failures.append(f"trial {news.number}: {news.error}")
            if self._metrics is not None:
                self._metrics.progress()
            self._view.trial(news)

        work = asyncio.create_task(run_trial(claim, self._config, self._study, services, pool, self._call, announce))
        self._running[claim.number] = (claim, work)
        try:
            await work
        except LeaseLost as other:
            log.warning("trial %d is left to another process: %s", claim.number, other)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Only the trial was given up: another process thought this one dead, and has it now.
        finally:
            del self._running[claim.number]
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        await self._call(self._study.put_down, claim)
        await self._call(self._measure)

    async def _confirm(self, services: Services, pool: ActorPool) -> None:
        while (best := await self._call(self._unconfirmed)) is not None:
            if await self._call(self._study.may_confirm):
                await asyncio.sleep(unsettled_s(self._config.section.lease_s))
                if await self._call(self._study.confirms):
                    break
            self._view.status("Another process confirms the best trial")
            await asyncio.sleep(_LOOK_S)
        if best is None:
            return
        self._view.status("Holding the best trial against the paper's setting, on held-out tasks")
        confirmation = await confirm(
            self._config, best.number, dict(best.params), self._folder / "holdout", services, pool,
            self._view.confirming,
        )  # fmt: skip
        key = confirmation_key(self._config, dict(best.params))
        await self._call(self._study.confirmed, confirmation_document(confirmation, key))

    async def _beats(self, account: Spending) -> None:
        pause = min(_MOST_BEAT_S, self._config.section.lease_s / _BEATS_A_LEASE)
        while True:
            await asyncio.sleep(pause)
            await account.look()
            self._others = await self._call(self._beat)
            self._view.spent(self.spent)
            await self._call(self._measure)
            self._require_budget()
            for claim, work in list(self._running.values()):
                if not await self._call(self._study.is_ours, claim):
                    work.cancel()
            with suppress(StorageError):  # said at the end, if it is still so
                await asyncio.get_running_loop().run_in_executor(self._thread, self._saved, self)

    def _beat(self) -> Spent:
        self._study.processes.beat(self._own)
        return self._study.processes.others_spent()

    def _measure(self) -> None:
        if self._metrics is not None:
            if not self._running:  # what waits for other processes, or confirms, does not stand still
                self._metrics.progress()
            self._metrics.state(self._study.trials(), self.spent, self.wall_s)

    def _require_budget(self) -> None:
        """What other processes spend meanwhile, the limiter of this one does not know."""
        budget, spent = self._config.base.budget, self.spent
        for name, most, used in (
            ("calls", budget.calls, spent.calls),
            ("tokens", budget.tokens, spent.tokens),
            ("usd", budget.usd, spent.usd),
        ):
            if most is not None and used >= most:
                raise BudgetExhausted(f"budget.{name}: {used:g} of {most:g} are spent, by all processes together")

    async def _call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call something on the study's thread, again where the storage is out of reach for a moment.

        All that is called may be called twice: what was done already is not done again.
        """
        loop = asyncio.get_running_loop()
        for wait_s in _STORAGE_WAITS_S:
            try:
                return await loop.run_in_executor(self._thread, function, *arguments)
            except StorageError as error:
                log.warning("%s; trying again in %g s", error, wait_s)
                await asyncio.sleep(wait_s)
        return await loop.run_in_executor(self._thread, function, *arguments)

    def _call_now(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return self._thread.submit(function, *arguments).result()
