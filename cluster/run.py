"""``gpo run``: from a configuration to a folder of results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack, aclosing

from actors.search import Phase, Search, SearchKey, Update
from actors.supervisor import Placement, Supervisor
from cluster.build import build_evaluators, build_searches, embedded_specs
from cluster.config import RunConfig
from cluster.interrupts import run_interruptibly
from cluster.outputs import RunRecord
from cluster.preflight import explained_refusal
from cluster.progress import Progress, View
from cluster.ray_session import cpus_missing, ray_session
from cluster.run_folder import RunFolder
from cluster.services import EMBEDDED_CPUS, embedded_models, evaluator
from gpo.errors import ModelRefused
from gpo.tasks import Task
from serve.client import ServeEvaluator


def run_keys(config: RunConfig) -> tuple[SearchKey, ...]:
    """One key per task and seed, in the order of the configuration."""
    return tuple(SearchKey(task.name, seed) for task in config.tasks for seed in config.run.seeds)


def is_complete(record: RunRecord, num_steps: int) -> bool:
    """Whether every trajectory took all its steps and has its test scores."""
    return all(
        (checkpoint := record.checkpoints.get(key)) is not None
        and len(checkpoint.trajectory.steps) >= num_steps
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

    def execute(self, address: str, view: View) -> None:
        """Run to the end, and leave the results in the folder, whatever the end is.

        Raises:
            ConfigError: an endpoint refuses the key or the model; no cluster at the address.
            GPOError: the run could not go on.
            KeyboardInterrupt: it was told to stop (SIGINT or SIGTERM); what is done is saved.
        """
        started, earlier = time.monotonic(), self._record.wall_s
        self._record.status = "running"
        # Ray ends with the stack, after the results are saved: its end can take long, or fail.
        with ExitStack() as stack:
            try:
                if not is_complete(self._record, self._config.optimizer.steps):
                    run_interruptibly(self._follow(self._start(stack, address, view), view))
                self._record.status = "failed" if self._record.errors else "completed"
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

    def _start(self, stack: ExitStack, address: str, view: View) -> list[Search]:
        config, cpus = self._config, self._cpus_needed()
        view.status("Starting Ray" if address == "local" else f"Connecting to Ray at {address}")
        stack.enter_context(ray_session(address, cpus_needed=cpus))
        missing = cpus_missing(cpus)
        shortage = f" (the cluster has {missing:g} CPUs too few; it must grow, or this waits)" if missing else ""
        specs = embedded_specs(config)
        if specs:
            view.status(f"Starting the embedded model{shortage}")
        urls = stack.enter_context(embedded_models(specs))
        view.status(f"Starting the evaluator{shortage}")
        handle = stack.enter_context(
            evaluator(
                f"gpo-{self._record.run_id}",
                build_evaluators(config, self._tasks, urls),
                replicas=config.cluster.evaluator_replicas,
                cpus=config.cluster.evaluator_cpus,
            )
        )
        evaluators = {task.name: ServeEvaluator(handle, task.name) for task in self._tasks}
        return build_searches(config, self._tasks, evaluators, urls)

    async def _follow(self, searches: Sequence[Search], view: View) -> None:
        cluster = self._config.cluster
        placement = Placement(cluster.trajectories_per_actor, cluster.actor_cpus, cluster.actor_restarts)
        progress = Progress(self._record.keys, self._config.optimizer.steps)
        view.begin(progress)
        ticking = asyncio.create_task(_tick(view))
        try:
            # Closed here rather than by the garbage collector: its actors end before Ray does, whatever goes wrong.
            async with aclosing(Supervisor(searches, self._folder.checkpoints, placement).run()) as updates:
                async for update in updates:
                    self._take(update)
                    progress.rows[update.key].take(update)
                    view.show(update)
        finally:
            ticking.cancel()

    def _take(self, update: Update) -> None:
        if update.checkpoint is not None:
            before = self._record.checkpoints.get(update.key)
            known = len(before.trajectory.steps) if before else 0
            self._record.checkpoints[update.key] = update.checkpoint
            for step in update.checkpoint.trajectory.steps[known:]:
                self._folder.append_step(update.key, step)
        if update.phase is Phase.DONE and update.error:
            self._record.errors[update.key] = update.error

    def _cpus_needed(self) -> float:
        cluster = self._config.cluster
        return (
            self._config.num_actors * cluster.actor_cpus
            + cluster.evaluator_replicas * cluster.evaluator_cpus
            + len(embedded_specs(self._config)) * EMBEDDED_CPUS
        )


async def _tick(view: View) -> None:
    while True:
        await asyncio.sleep(1.0)
        view.tick()
