"""One run: the loop that ``gpo run``, ``gpo compare`` and ``gpo sweep`` share, and what a run on its own adds to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any

from actors.folder import Folder
from actors.search import Update
from actors.slots import SpareActors
from actors.supervisor import Supervisor
from cluster.config import RunConfig
from cluster.display.progress import Progress, View
from cluster.results.run_record import RunRecord
from cluster.runs.run_folder import RunFolder
from cluster.runs.searches import build_searches
from cluster.runs.stop_file import stop_requested
from cluster.session.budget import BudgetTracker
from cluster.session.interrupts import run_interruptibly
from cluster.session.preflight import explained_refusal
from cluster.session.session import Services, Session, placement
from cluster.tracking.tracking import tracked
from gpo.concurrency import FailFastGroup
from gpo.data.task import Task
from gpo.errors import BudgetExhausted, ModelRefused, StorageError

_SAVED_EVERY_S = 10.0


class Run:
    """Trajectories of several tasks and seeds under one configuration.

    Args:
        tasks: loaded and checked; those of ``config``, in its order.
        record: the state of the run, as ``RunFolder.open`` returns it; kept up to date.
        folder: where everything is saved.
        population: distinguishes trajectories of one task and seed that run side by side; empty for a run on its own.
    """

    def __init__(
        self, config: RunConfig, tasks: Sequence[Task], record: RunRecord, folder: RunFolder, *, population: str = ""
    ) -> None:
        self.record = record
        self._config, self._tasks, self._folder, self._population = config, tasks, folder, population

    async def updates(
        self, services: Services, actors: Iterable[Any], pool: SpareActors | None = None
    ) -> AsyncGenerator[Update, None]:
        """Continue the trajectories to their ends; yields each update once the record and ``steps.jsonl`` hold it.

        Closing the generator stops the trajectories; their checkpoints stay, and their actors end or return to the
        pool.

        Args:
            actors: running ones, to be used first.
            pool: takes idle actors back; without one, they end.

        Raises:
            GPOError: as for ``Supervisor.run``.
        """
        searches = [
            replace(search, is_tested=self.record.is_tested, population=self._population)
            for search in build_searches(self._config, self._tasks, services.evaluators, services.access)
        ]
        spread = placement(self._config, services.metrics)
        # Closed here, not by the garbage collector: the actors must end before Ray does, even after a failure.
        async with aclosing(Supervisor(searches, self._folder.checkpoints, spread, actors, pool=pool).run()) as updates:
            async for update in updates:
                for step in self.record.receive(update):
                    self._folder.append_step(self.record, update.key, step)
                yield update

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
        record = self.record
        with tracked(self._config, record, self._folder.folder):
            began = time.monotonic() - record.wall_s
            try:
                record.status = "running"
                self._folder.save(record)
                with ending_recorded(record, self._config):
                    if not record.is_complete:
                        services = session.services
                        counted = services.metrics.counted_view(view, self._config, record)
                        folders = (self._folder.folder, *outer)
                        run_interruptibly(
                            self._follow(services, counted, title, began), lambda: stop_requested(folders)
                        )
            finally:
                record.finished_at, record.wall_s = time.time(), time.monotonic() - began
                self._folder.save(record)

    async def _follow(self, services: Services, view: View, title: str, began: float) -> None:
        budget = BudgetTracker(self._config.budget, services.access, self.record)
        await budget.open(time.monotonic() - began)
        progress = Progress(self.record.num_steps, title, self.record.stopping)
        view.begin(progress)
        ticking = asyncio.create_task(self._tick(view, budget, progress, began))
        try:
            async with budget.time_limit(), FailFastGroup() as parts:
                parts.begin(self._until_lease_lost())
                await parts.result(parts.begin(self._show_updates(services, progress, view)))
        finally:
            ticking.cancel()
            await budget.update()

    async def _show_updates(self, services: Services, progress: Progress, view: View) -> None:
        async with aclosing(self.updates(services, services.take_actors())) as updates:
            async for update in updates:
                progress.rows[update.key].receive(update)
                view.show(update)

    async def _until_lease_lost(self) -> None:
        """Never return; raise ``LeaseLost`` once another process has taken the run over."""
        while True:
            await asyncio.sleep(1.0)
            if self._folder.leases is not None:
                self._folder.leases.require_held()

    async def _tick(self, view: View, budget: BudgetTracker, progress: Progress, began: float) -> None:
        saved = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            view.tick()
            await budget.update()
            progress.receive_spent(self.record.reported)
            progress.wait = await budget.longest_wait()
            self.record.wall_s = time.monotonic() - began
            if time.monotonic() - saved > _SAVED_EVERY_S:  # a killed driver loses no more than that
                with suppress(StorageError):  # if the problem lasts, saving at the end reports it
                    # In a thread: a store that cannot be reached must not delay the trajectories' updates.
                    await asyncio.to_thread(self._folder.write_summary, self._folder.summary(self.record))
                saved = time.monotonic()


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
    except KeyboardInterrupt:
        record.status = "interrupted"
        raise
    except ModelRefused as refusal:
        record.status = "failed"
        raise explained_refusal(config, refusal) from None
    except BaseException:
        record.status = "failed"
        raise
