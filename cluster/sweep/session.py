"""``gpo sweep`` in one process: it runs trials of the study side by side until none is left, then confirms the best."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from optuna.trial import FrozenTrial
from rich.console import Console

from actors.lease import LeaseLost
from cluster.monitoring.tracking import tracked_sweep
from cluster.results.run_record import RunRecord
from cluster.runs.run import ending_recorded
from cluster.runs.stop_file import stop_requested
from cluster.session.actor_pool import ActorPool
from cluster.session.budget import BudgetTracker, TimeLimit
from cluster.session.interrupts import run_interruptibly
from cluster.session.models import RefusedParameters
from cluster.session.session import Services, Session
from cluster.sweep.config import SweepConfig
from cluster.sweep.confirmation import confirm, confirmation_document, confirmation_key
from cluster.sweep.folder import SweepFolder, worked_s
from cluster.sweep.metrics import SweepMetrics
from cluster.sweep.progress import SweepProgress, SweepView, sweep_view
from cluster.sweep.results import SweepRecord, save_sweep
from cluster.sweep.storage import open_storage
from cluster.sweep.study import Claim, SharedStudy, best_trial, bid_settles_s
from cluster.sweep.trial import TrialRunner, TrialUpdate
from gpo.errors import BudgetExhausted, StorageError
from gpo.limits.gate import SETTLES_S
from gpo.limits.messages import Spent
from gpo.runtime.concurrency import gather

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_STORAGE_WAITS_S = (1.0, 4.0, 10.0)
_POLL_S = 2.0
"""How often to look for trials of other processes while this one has none to start."""
_HEARTBEATS_PER_LEASE = 5
_HEARTBEAT_AT_MOST_S = 10.0


def run_sweep(
    config: SweepConfig, folder: SweepFolder, address: str, console: Console, refused: RefusedParameters
) -> dict[str, Any]:
    """Work on a sweep until it is over, out of budget or interrupted; the content of ``sweep.json``.

    Args:
        refused: parameters that are known to be refused.

    Raises:
        ConfigError: the storage cannot be used, or holds another sweep; no cluster at the address.
        GPOError: the sweep could not continue; all finished work is saved.
    """
    storage = open_storage(config.section.storage, folder.folder)
    study = SharedStudy(config, storage, folder.trial_url)
    over = [
        (trial.number, trial.state.name.lower(), trial.values[0] if trial.values else None)
        for trial in study.trials()
        if trial.state.is_finished()
    ]
    tracking = tracked_sweep(config.base.tracking, folder.sweep_id, study.objectives, folder.folder)
    with sweep_view(console, SweepProgress(config.section.trials, over)) as view, tracking as track:
        sweep = SweepSession(config, study, folder, view, track)
        actors = config.section.max_parallel_trials * config.base.num_actors + 1  # one is spare
        with Session(
            config.together,
            [*config.tasks, *config.holdout_tasks],
            name=f"gpo-{folder.sweep_id}-{study.heartbeats.me}",
            address=address,
            view=view,
            num_actors=actors,
            refused=refused,
        ) as session:
            try:
                with suppress(KeyboardInterrupt):  # recorded in the status
                    sweep.execute(session)
            finally:
                view.status("Writing the report")
                document = sweep.save(with_report=True)
    return document


class SweepSession:
    """The work of this process on a study.

    Args:
        track: receives all trials of the study whenever they are saved.
    """

    def __init__(
        self,
        config: SweepConfig,
        study: SharedStudy,
        folder: SweepFolder,
        view: SweepView,
        track: Callable[[Sequence[FrozenTrial]], None],
    ) -> None:
        self._config, self._study, self._folder, self._view, self._track = config, study, folder, view, track
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="study")
        self._limit = TimeLimit(config.base.budget.wall_s, folder.began)
        self._complete_s: float | None = None  # the time of a sweep that was complete before this attempt
        self._record = RunRecord(config.study, started_at=time.time(), status="running")
        self._others = self._before = Spent()
        self._running: dict[int, tuple[Claim, asyncio.Task[Any]]] = {}
        self._metrics: SweepMetrics | None = None

    @property
    def wall_s(self) -> float:
        """Seconds of work in this folder, over all attempts."""
        return self._limit.spent_s if self._complete_s is None else self._complete_s

    @property
    def spent(self) -> Spent:
        """By all processes, over all attempts."""
        return self._others + self._own

    @property
    def _own(self) -> Spent:
        return self._record.reported - self._before

    def save(self, *, with_report: bool) -> dict[str, Any]:
        """Save the results so far; the content of ``sweep.json``.

        Raises:
            StorageError: a file could not be written, or the study cannot be read.
        """
        folder, status, ended_by = self._folder, self._record.status, self._record.ended_by
        record = SweepRecord(folder.sweep_id, status, folder.started_at, self.wall_s, self.spent, ended_by)
        document = save_sweep(self._config, self._study, record, folder, with_report=with_report)
        self._track(self._study.trials())
        return document

    def execute(self, session: Session) -> None:
        """Work to the end; trials that are not over wait for the next attempt.

        Args:
            session: started only if there is work to do.

        Raises:
            ConfigError: an endpoint refuses the key or the model.
            GPOError: the sweep could not continue.
            KeyboardInterrupt: a signal or a stop file ended it.
        """
        try:
            with ending_recorded(self._record, self._config.base):
                self._others = self._before = self._record.reported = self._call_now(self._heartbeat)
                if self._call_now(self._has_work):
                    with self._limit.while_waiting(self._save_now):
                        services = session.services
                    folders = [self._folder.folder]
                    run_interruptibly(self._work(services), lambda: stop_requested(folders))
                else:
                    self._complete_s = worked_s(self._folder.folder)
        finally:
            self._leave()

    def _save_now(self) -> None:
        with suppress(StorageError):  # if the problem lasts, saving at the end reports it
            self._call_now(partial(self.save, with_report=False))

    def _has_work(self) -> bool:
        return not self._study.is_over() or self._unconfirmed() is not None

    def _unconfirmed(self) -> FrozenTrial | None:
        """The best trial, if the sweep confirms it and has not done so yet."""
        best = best_trial(self._study.trials()) if self._config.holdout is not None else None
        known = self._study.confirmation
        if best is None:
            return None
        wanted = {"trial": best.number, "key": confirmation_key(self._config, dict(best.params))}
        return None if known is not None and wanted.items() <= known.items() else best

    def _leave(self) -> None:
        try:
            end_heartbeat = partial(self._study.heartbeats.beat, self._own, ended=True)
            for last in (self._study.release, end_heartbeat, self._measure):
                with suppress(StorageError):
                    self._call_now(last)
        finally:
            if self._metrics is not None:
                self._metrics.end()
            self._thread.shutdown()

    async def _work(self, services: Services) -> None:
        self._others = self._before = await self._call(self._study.heartbeats.others_spent)
        self._record.reported = self._before
        budget = BudgetTracker(self._config.base.budget, services.access, self._record)
        await budget.open()
        self._metrics = SweepMetrics(services.metrics, self._config.base.budget)
        await self._call(self._measure)
        pool = ActorPool(self._config.base, services)
        beating = asyncio.create_task(self._send_heartbeats(budget))
        ticking = asyncio.create_task(self._tick(budget))
        try:
            async with self._limit.enforced():
                working = asyncio.create_task(self._run_all(services, pool))
                try:
                    await asyncio.wait([working, beating], return_when=asyncio.FIRST_COMPLETED)
                    if beating.done():
                        beating.result()  # over budget, or the storage cannot be reached
                    await working
                finally:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
        finally:
            beating.cancel()
            ticking.cancel()
            await asyncio.gather(beating, ticking, return_exceptions=True)
            try:
                await asyncio.sleep(2 * SETTLES_S)  # the last calls are reported before the callers' processes end
            finally:
                await pool.end()
                await budget.update()

    async def _run_all(self, services: Services, pool: ActorPool) -> None:
        await gather(self._run_trials(services, pool) for _ in range(self._config.section.max_parallel_trials))
        if self._config.holdout is not None:
            await self._confirm(services, pool)

    async def _run_trials(self, services: Services, pool: ActorPool) -> None:
        """Run one trial after the other, until all trials of all processes are over."""
        while True:
            claim = await self._call(self._study.claim)
            if claim is None:
                await pool.last()
                claim = await self._take_over()
            if claim is None:
                if await self._call(self._study.is_over):
                    return
                # Other processes run the rest. If one dies, its trials are taken over here.
                await asyncio.sleep(_POLL_S)
                continue
            await self._run_trial(claim, services, pool)

    async def _take_over(self) -> Claim | None:
        """Claim a trial of a dead process."""
        for number in await self._call(self._study.abandoned):
            if await self._call(self._study.bid, number):
                await asyncio.sleep(bid_settles_s(self._config.section.lease_s))
                claim = await self._call(self._study.won, number)
                if claim is not None and claim.number not in self._running:
                    return claim
        return None

    async def _run_trial(self, claim: Claim, services: Services, pool: ActorPool) -> None:
        def notify(update: TrialUpdate) -> None:
            if self._metrics is not None:
                self._metrics.progress()
            self._view.trial(update)

        runner = TrialRunner(self._config, self._study, services, pool, self._call, notify)
        work = asyncio.create_task(runner.run(claim))
        self._running[claim.number] = (claim, work)
        try:
            await work
        except LeaseLost as lost:
            log.warning("trial %d is left to another process: %s", claim.number, lost)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Only the trial was cancelled: another process took this one for dead, and now runs the trial.
        finally:
            del self._running[claim.number]
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        await self._call(self._study.drop, claim)
        await self._call(self._measure)

    async def _confirm(self, services: Services, pool: ActorPool) -> None:
        while (best := await self._call(self._unconfirmed)) is not None:
            if await self._call(self._study.bid_to_confirm):
                await asyncio.sleep(bid_settles_s(self._config.section.lease_s))
                if await self._call(self._study.owns_confirmation):
                    break
            self._view.status("Another process confirms the best trial")
            await asyncio.sleep(_POLL_S)
        if best is None:
            return
        self._view.status("Comparing the best trial with the paper's setting on held-out tasks")
        params, folder = dict(best.params), self._folder.folder / "holdout"
        confirmation = await confirm(self._config, best.number, params, folder, services, pool, self._view.confirming)
        key = confirmation_key(self._config, params)
        await self._call(self._study.save_confirmation, confirmation_document(confirmation, key))

    async def _tick(self, budget: BudgetTracker) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._view.tick(await budget.longest_wait())

    async def _send_heartbeats(self, budget: BudgetTracker) -> None:
        pause = min(_HEARTBEAT_AT_MOST_S, self._config.section.lease_s / _HEARTBEATS_PER_LEASE)
        while True:
            await asyncio.sleep(pause)
            await budget.update()
            self._others = await self._call(self._heartbeat)
            self._view.spent(self.spent)
            await self._call(self._measure)
            self._require_budget()
            for claim, work in list(self._running.values()):
                if not await self._call(self._study.owns, claim):
                    work.cancel()
            with suppress(StorageError):  # if the problem lasts, saving at the end reports it
                await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self.save(with_report=False))

    def _heartbeat(self) -> Spent:
        self._study.heartbeats.beat(self._own)
        return self._study.heartbeats.others_spent()

    def _measure(self) -> None:
        if self._metrics is not None:
            if not self._running:  # waiting for other processes, or confirming, counts as progress too
                self._metrics.progress()
            self._metrics.state(self._study.trials(), self.spent, self.wall_s)

    def _require_budget(self) -> None:
        """Hold the spending of all processes against the budget: the limiter knows only that of this process."""
        budget, spent = self._config.base.budget, self.spent
        for name, most, used in (
            ("calls", budget.calls, spent.calls),
            ("tokens", budget.tokens, spent.tokens),
            ("usd", budget.usd, spent.usd),
        ):
            if most is not None and used >= most:
                raise BudgetExhausted(f"budget.{name}: {used:g} of {most:g} are spent, by all processes together")

    async def _call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function on the study's thread, and retry while the storage cannot be reached.

        The functions are idempotent: the storage may have done its part before the error.
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
