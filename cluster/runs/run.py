"""``gpo run``: from a configuration to a folder of results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from actors.search import Phase, Search, SearchKey, Update
from actors.slots import Placement
from actors.supervisor import Supervisor
from cluster.config import RunConfig
from cluster.display.progress import Progress, View
from cluster.results.outputs import RunRecord
from cluster.runs.run_folder import RunFolder
from cluster.runs.searches import build_searches
from cluster.session.budget import Spending
from cluster.session.interrupts import run_interruptibly
from cluster.session.preflight import explained_refusal
from cluster.session.session import Session, placement
from cluster.tracking.tracking import tracked
from gpo.concurrency import FailFastGroup
from gpo.data.task import Split, Task
from gpo.errors import BudgetExhausted, ModelRefused, StorageError

_SAVED_EVERY_S = 10.0


def run_keys(config: RunConfig) -> tuple[SearchKey, ...]:
    """One key per task and seed, in the order of the configuration."""
    return tuple(SearchKey(task.name, seed) for task in config.tasks for seed in config.run.seeds)


def is_complete(record: RunRecord, num_steps: Mapping[SearchKey, int]) -> bool:
    """Whether every trajectory took all its steps and has its test scores."""
    return all(
        (checkpoint := record.checkpoints.get(key)) is not None
        and len(checkpoint.trajectory.steps) >= num_steps[key]
        and {checkpoint.trajectory.initial.prompt.id, checkpoint.trajectory.best.prompt.id} <= set(checkpoint.test)
        for key in record.keys
    )


class Run:
    """One sitting of a run: carries the trajectories from where they are as far as it gets.

    Args:
        tasks: loaded and checked.
        record: what is known already; kept up to date.
        folder: where everything is saved.
    """

    def __init__(self, config: RunConfig, tasks: Sequence[Task], record: RunRecord, folder: RunFolder) -> None:
        self._config, self._tasks, self._record, self._folder = config, tasks, record, folder
        steps_of = {task.name: config.optimizer.num_steps(len(task.examples[Split.TRAIN])) for task in tasks}
        self._num_steps = {key: steps_of[key.task] for key in record.keys}

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do."""
        return is_complete(self._record, self._num_steps)

    def execute(self, standing: Session, view: View, title: str = "") -> None:
        """Run to the end, and leave the results in the folder, whatever the end is.

        Args:
            title: of the run, where several are shown one after the other.
            standing: what the run works with. It ends after the results are saved: its end can take long, or fail.

        Raises:
            ConfigError: an endpoint refuses the key or the model; no cluster at the address.
            GPOError: the run could not go on.
            KeyboardInterrupt: it was told to stop (SIGINT or SIGTERM); what is done is saved.
        """
        with tracked(self._config, self._record, self._folder.folder):
            self._execute(standing, view, title)

    def _execute(self, standing: Session, view: View, title: str) -> None:
        started, earlier = time.monotonic(), self._record.wall_s
        self._record.status = "running"
        self._folder.save(self._record)
        try:
            if not self.is_complete:
                services = standing.services
                searches = build_searches(self._config, self._tasks, services.evaluators, services.access)
                account = Spending(self._config.budget, services.access, self._record)
                left_s = account.left_s(earlier + time.monotonic() - started)
                actors, spread = services.take_actors(), placement(self._config, services.metrics)
                counted = services.metrics.beside(view, self._config, self._record)
                run_interruptibly(self._follow(searches, actors, spread, account, left_s, counted, title))
            self._record.status = "failed" if self._record.errors else "completed"
        except BudgetExhausted as exhausted:
            self._record.status, self._record.ended_by = "budget_exhausted", str(exhausted)
        except KeyboardInterrupt:
            self._record.status = "interrupted"
            raise
        except ModelRefused as refusal:
            self._record.status = "failed"
            raise explained_refusal(self._config, refusal) from None
        except BaseException:
            self._record.status = "failed"
            raise
        finally:
            self._record.finished_at = time.time()
            self._record.wall_s = earlier + time.monotonic() - started
            self._folder.save(self._record)

    async def _follow(
        self,
        searches: Sequence[Search],
        actors: Iterable[Any],
        spread: Placement,
        account: Spending,
        left_s: float | None,
        view: View,
        title: str,
    ) -> None:
        await account.open()
        try:
            async with asyncio.timeout(left_s) as time_left:
                await self._follow_to_end(searches, actors, spread, account, view, title)
        except TimeoutError:
            if not time_left.expired():
                raise
            raise BudgetExhausted(f"budget.wall_s: {self._config.budget.wall_s:g} s are over") from None
        finally:
            await account.look()

    async def _follow_to_end(
        self,
        searches: Sequence[Search],
        actors: Iterable[Any],
        spread: Placement,
        account: Spending,
        view: View,
        title: str,
    ) -> None:
        progress = Progress(self._num_steps, title)
        view.begin(progress)
        ticking = asyncio.create_task(self._tick(view, account, progress))
        try:
            async with FailFastGroup() as parts:
                parts.begin(self._until_lease_lost())
                await parts.result(parts.begin(self._take_all(searches, actors, spread, progress, view)))
        finally:
            ticking.cancel()

    async def _take_all(
        self, searches: Sequence[Search], actors: Iterable[Any], spread: Placement, progress: Progress, view: View
    ) -> None:
        # Closed here rather than by the garbage collector: its actors end before Ray does, whatever goes wrong.
        async with aclosing(Supervisor(searches, self._folder.checkpoints, spread, actors).run()) as updates:
            async for update in updates:
                self._take(update)
                progress.rows[update.key].take(update)
                view.show(update)

    async def _until_lease_lost(self) -> None:
        """Never return; raise ``LeaseLost`` once another process has taken the run over."""
        while True:
            await asyncio.sleep(1.0)
            if self._folder.leases is not None:
                self._folder.leases.require_held()

    async def _tick(self, view: View, account: Spending, progress: Progress) -> None:
        before = self._record.wall_s
        started = saved = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            view.tick()
            await account.look()
            progress.take_spent(self._record.reported)
            self._record.wall_s = before + time.monotonic() - started
            if time.monotonic() - saved > _SAVED_EVERY_S:  # a driver that is killed forgets no more than that
                with suppress(StorageError):  # said at the end, if it is still so
                    # A store that is out of reach keeps its thread waiting, not the trajectories' news.
                    await asyncio.to_thread(self._folder.write_summary, self._folder.summary(self._record))
                saved = time.monotonic()

    def _take(self, update: Update) -> None:
        if update.checkpoint is not None:
            before = self._record.checkpoints.get(update.key)
            known = len(before.trajectory.steps) if before else 0
            self._record.checkpoints[update.key] = update.checkpoint
            for step in update.checkpoint.trajectory.steps[known:]:
                self._folder.append_step(update.key, step)
        if update.phase is Phase.DONE and update.error:
            self._record.errors[update.key] = update.error
