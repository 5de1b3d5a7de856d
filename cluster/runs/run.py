"""One run: the loop that ``gpo run``, ``gpo compare`` and ``gpo sweep`` share, and what a run on its own adds to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import Search, Update
from cluster.config import RunConfig
from cluster.display.progress import Progress, View
from cluster.monitoring.tracking import tracked
from cluster.results.run_record import RunRecord
from cluster.runs.run_folder import RunFolder
from cluster.runs.searches import TaskEvaluator, build_searches
from cluster.runs.stop_file import stop_requested
from cluster.session.budget import SAVED_EVERY_S, BudgetTracker, TimeLimit
from cluster.session.interrupts import StopRequested, run_interruptibly, stoppable_work
from cluster.session.models import Access
from cluster.session.preflight import explained_refusal
from gpo.data.task import Task
from gpo.errors import BudgetExhausted, ModelRefused, StorageError
from gpo.events import Event, OnEvent, RunEnded, new_events
from gpo.runtime.concurrency import FailFastGroup, in_threads

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cluster.session.session import Session


class Services(Protocol):
    """What a run works with: a ``Session`` on Ray, or this process alone."""

    @property
    def evaluators(self) -> Mapping[str, TaskEvaluator]:
        """Task name → its evaluator."""
        ...

    @property
    def access(self) -> Access:
        """How to reach the models."""
        ...

    def run(
        self, config: RunConfig, searches: Sequence[Search], store: CheckpointStore, pool: Any = None
    ) -> AsyncGenerator[Update]:
        """Run searches to their ends; closing the generator stops them.

        Args:
            pool: running actors, for services that run searches in actors; takes idle ones back.

        Raises:
            GPOError: as for ``actors.supervisor.Supervisor.run``.
        """
        ...

    def counted_view(self, view: View, config: RunConfig, record: RunRecord) -> View:
        """A view that also counts what it is shown, if metrics are on."""
        ...


class Run:
    """Trajectories of several tasks and seeds under one configuration.

    Args:
        tasks: loaded and checked; those of ``config``, in its order.
        record: the state of the run, as ``RunFolder.open`` returns it; kept up to date.
        folder: where everything is saved.
        population: distinguishes trajectories of one task and seed that run side by side; empty for a run on its own.
        on_event: called in the driver with everything that happens; what it raises is logged, and the run continues.
    """

    def __init__(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        record: RunRecord,
        folder: RunFolder,
        *,
        population: str = "",
        on_event: OnEvent | None = None,
    ) -> None:
        self.record, self._on_event = record, on_event
        self._config, self._tasks, self._folder, self._population = config, tasks, folder, population

    async def updates(self, services: Services, pool: Any = None) -> AsyncGenerator[Update, None]:
        """Continue the trajectories to their ends; yields each update once the record and ``steps.jsonl`` hold it.

        Closing the generator stops the trajectories; their checkpoints stay.

        Args:
            pool: see ``Services.run``.

        Raises:
            GPOError: as for ``Services.run``.
        """
        searches = [
            replace(
                search,
                is_tested=self.record.is_tested,
                population=self._population,
                record=None if self._population else self._config.record.build(len(self.record.keys)),
            )
            for search in build_searches(self._config, self._tasks, services.evaluators, services.access)
        ]
        # Closed here, not by the garbage collector: actors must end before Ray does, even after a failure.
        async with aclosing(services.run(self._config, searches, self._folder.checkpoints, pool)) as updates:
            async for update in updates:
                known = self.record.steps_taken(update.key) if update.key in self.record.checkpoints else None
                for step in self.record.receive(update):
                    self._folder.append_step(self.record, update.key, step)
                if update.checkpoint is not None:
                    key, trajectory = update.key, update.checkpoint.trajectory
                    self._emit(new_events(key.task, key.seed, trajectory, known))
                yield update

    def _emit(self, events: Iterable[Event]) -> None:
        for event in events if self._on_event else ():
            try:
                self._on_event(event)  # type: ignore[misc]  # not None here
            except (Exception, SystemExit):
                log.exception("on_event failed; the run continues")

    def execute(self, session: Session, view: View, title: str = "", outer: Sequence[Folder] = ()) -> None:
        """Run to the end, and save the results however it ends.

        Args:
            session: must stay open until this returns: closing it can take long, or fail.
            title: shown where several runs follow each other.
            outer: a stop file in one of these folders ends the run, like one in its own folder.

        Raises:
            ConfigError: an endpoint refuses the key or the model; no cluster at the address.
            GPOError: the run could not continue.
            KeyboardInterrupt: a signal or a stop file ended the run; all finished work is saved.
        """
        with self._end_reported(), self._saved() as limit:
            if not self.record.is_complete:
                with limit.while_waiting(lambda: self._save_time(limit)):
                    services = session.services
                folders = (self._folder.folder, *outer)
                run_interruptibly(self._follow(services, view, title, limit), lambda: stop_requested(folders))

    async def execute_here(self, services: Services, view: View) -> None:
        """Run to the end in the running event loop, and save the results however it ends.

        Raises:
            ConfigError, GPOError: as for ``execute``.
            StopRequested: a stop file ended the run; all finished work is saved.
            CancelledError: the task was cancelled; all finished work is saved.
        """
        # Files are written in a thread, since other runs may work in this event loop.
        with self._end_reported():
            async with in_threads(self._saved()) as limit:
                if self.record.is_complete:
                    return
                folders = (self._folder.folder,)
                await stoppable_work(self._follow(services, view, "", limit), lambda: stop_requested(folders))

    def conclude(self) -> None:
        """Record the end of a run that is complete already, and was opened again.

        Raises:
            StorageError: it cannot be saved.
        """
        with self._end_reported(), self._saved():
            pass

    @contextmanager
    def _saved(self) -> Iterator[TimeLimit]:
        """Track the run, record how the block ends, and save everything then; gives the run's time limit."""
        record = self.record
        with tracked(self._config, record, self._folder.folder):
            limit, was_complete = TimeLimit.of(self._config.budget, record), record.is_complete
            try:
                record.status = "running"
                if not was_complete:
                    record.wall_s = limit.spent_s
                self._folder.save(record)
                with ending_recorded(record, self._config):
                    yield limit
            finally:
                if not was_complete:
                    record.finished_at, record.wall_s = time.time(), limit.spent_s
                elif record.finished_at is None:  # the process that completed it was killed before it said so
                    record.finished_at = time.time()
                self._folder.save(record)

    @contextmanager
    def _end_reported(self) -> Iterator[None]:
        try:
            yield
        finally:
            record = self.record
            self._emit([RunEnded(record.run_id, record.status, self._folder.folder.path("").rstrip("/"))])

    async def _follow(self, services: Services, view: View, title: str, limit: TimeLimit) -> None:
        view = services.counted_view(view, self._config, self.record)
        budget = BudgetTracker(self._config.budget, services.access, self.record)
        await budget.open()
        progress = Progress(self.record.num_steps, title, self.record.stopping)
        view.begin(progress)
        ticking = asyncio.create_task(self._tick(view, budget, progress, limit))
        try:
            async with limit.enforced(), FailFastGroup() as parts:
                parts.begin(self._until_lease_lost())
                await parts.result(parts.begin(self._show_updates(services, progress, view)))
        finally:
            ticking.cancel()
            await budget.update()

    async def _show_updates(self, services: Services, progress: Progress, view: View) -> None:
        async with aclosing(self.updates(services)) as updates:
            async for update in updates:
                progress.rows[update.key].receive(update)
                view.show(update)

    async def _until_lease_lost(self) -> None:
        """Never return; raise ``LeaseLost`` once another process has taken the run over."""
        while True:
            await asyncio.sleep(1.0)
            if self._folder.leases is not None:
                self._folder.leases.require_held()

    async def _tick(self, view: View, budget: BudgetTracker, progress: Progress, limit: TimeLimit) -> None:
        saved = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            view.tick()
            await budget.update()
            progress.receive_spent(self.record.reported)
            progress.wait = await budget.longest_wait()
            self.record.wall_s = limit.spent_s
            if time.monotonic() - saved > SAVED_EVERY_S:
                with suppress(StorageError):  # if the problem lasts, saving at the end reports it
                    # In a thread: a store that cannot be reached must not delay the trajectories' updates.
                    await asyncio.to_thread(self._folder.write_summary, self._folder.summary(self.record))
                saved = time.monotonic()

    def _save_time(self, limit: TimeLimit) -> None:
        self.record.wall_s = limit.spent_s
        with suppress(StorageError):  # if the problem lasts, saving at the end reports it
            self._folder.write_summary(self._folder.summary(self.record))


@contextmanager
def ending_recorded(record: RunRecord, config: RunConfig) -> Iterator[None]:
    """Record how the block ends. An exhausted budget is an ordinary end; every other exception passes on.

    Raises:
        ConfigError: in place of ``ModelRefused``, naming the option of the key or the model.
    """
    try:
        yield
        record.status = "failed" if record.errors else "completed"
    except BudgetExhausted as exhausted:
        record.status, record.ended_by = "budget_exhausted", str(exhausted)
    except (KeyboardInterrupt, StopRequested, asyncio.CancelledError):
        record.status = "interrupted"
        raise
    except ModelRefused as refusal:
        record.status = "failed"
        raise explained_refusal(config, refusal) from None
    except BaseException:
        record.status = "failed"
        raise
