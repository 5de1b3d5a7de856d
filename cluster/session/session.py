"""The session: Ray, Serve, the embedded models and the evaluator, while runs work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from actors.checkpoints import CheckpointStore
from actors.limiter import LimiterActor
from actors.search import Search, Update
from actors.slots import Placement, SpareActors
from actors.supervisor import Supervisor
from cluster.config import RunConfig
from cluster.config.models import EmbeddedEmbeddingConfig
from cluster.config.optimizer import RetrievalConfig
from cluster.display.progress import Announcing, View
from cluster.results.run_record import RunRecord
from cluster.session.models import Access, RefusedParameters, build_evaluators, embedded_specs
from cluster.session.ray_connection import EMBEDDED_CPUS, cpus_missing, ray_connection
from gpo.data.task import Task
from gpo.runtime.process import usable_cores

if TYPE_CHECKING:
    from cluster.monitoring.run_metrics import Metrics
    from serve.client import ServeEvaluator


class ReusedActors(SpareActors, Protocol):
    """Running actors, which it takes back when they are idle."""

    def __iter__(self) -> Iterator[Any]: ...


_DEPLOYMENTS = "cluster.session.deployments"
_PRELOADED = ("serve.client", "gpo.models.client", "gpo.scoring.abilities")
"""Modules that every trajectory actor needs."""


@dataclass(frozen=True, slots=True)
class Services:
    """What runs work with while a session is open.

    Attributes:
        evaluators: task name → its evaluator.
        access: how to reach the models.
        actors: idle actors for the first run's trajectories.
        metrics: collects and exports the metrics of all runs.
    """

    evaluators: Mapping[str, ServeEvaluator]
    access: Access
    actors: list[Any]
    metrics: Metrics

    def take_actors(self) -> list[Any]:
        """Hand the idle actors over to a run, which ends them."""
        taken = list(self.actors)
        self.actors.clear()
        return taken

    def run(
        self, config: RunConfig, searches: Sequence[Search], store: CheckpointStore, pool: ReusedActors | None = None
    ) -> AsyncGenerator[Update]:
        """Run searches in actors; see ``actors.supervisor.Supervisor.run``.

        Args:
            pool: gives running actors, and takes idle ones back; without one, the session's idle actors are used, and
                end.
        """
        actors = self.take_actors() if pool is None else pool
        return Supervisor(searches, store, placement(config, self.metrics), actors, pool=pool).run()

    def counted_view(self, view: View, config: RunConfig, record: RunRecord) -> View:
        """A view that counts what it is shown for Prometheus, and shows it in the view that people see."""
        return self.metrics.counted_view(view, config, record)


class Session:
    """A context that starts what runs on the same tasks and models share, and ends it on exit.

    Everything starts at the first use of ``services``: a run that is complete needs none of it.

    Args:
        name: of the evaluator's Serve application; must be unique on the cluster.
        address: of the Ray cluster, as for ``ray_connection``.
        num_actors: trajectory actors that work at once; by default, those of one run.
        refused: parameters that are known to be refused.
    """

    def __init__(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        *,
        name: str,
        address: str,
        view: Announcing,
        num_actors: int | None = None,
        refused: RefusedParameters | None = None,
    ) -> None:
        self._config, self._tasks, self._name, self._address, self._view = config, tasks, name, address, view
        self._num_actors, self._refused = num_actors or config.num_actors, refused or {}
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start everything now rather than at the first use."""
        _ = self.services

    @cached_property
    def services(self) -> Services:
        """Started at the first use, outside any event loop, so that Ctrl-C works meanwhile.

        Raises:
            ConfigError: no cluster answers at the address.
            ClusterError, ModelUnavailable: a service did not start.
        """
        config, view, stack = self._config, self._view, self._stack
        # Importing Serve takes half as long as starting Ray, which mostly waits for other processes.
        importing = Thread(target=import_module, args=(_DEPLOYMENTS,), daemon=True)
        importing.start()
        specs = embedded_specs(config)
        cpus = (
            self._num_actors * config.cluster.actor_cpus
            + config.num_replicas * config.cluster.evaluator_cpus
            + len(specs) * EMBEDDED_CPUS
        )
        view.status("Starting Ray" if self._address == "local" else f"Connecting to Ray at {self._address}")
        stack.enter_context(ray_connection(self._address, cpus_needed=cpus))
        from cluster.monitoring.run_metrics import exported
        from cluster.session.embedded import EmbeddedModels

        missing = cpus_missing(cpus)
        shortage = f" (waiting for {missing:g} more CPUs in the cluster)" if missing else ""
        metrics = stack.enter_context(
            exported(config.metrics, self._name.removeprefix("gpo-"), is_alone=self._address == "local")
        )
        # All processes load their modules or weights at the same time, which takes each of them seconds.
        models = stack.enter_context(EmbeddedModels(specs))
        access = Access(models.urls, LimiterActor().start(), budget_name=self._name, refused=self._refused)
        spread, number = placement(config, metrics), min(self._num_actors, usable_cores())
        actors = [spread.start_actor(preloaded(config)) for _ in range(number)]
        importing.join()
        from cluster.session.deployments import deployed, start_serve
        from serve.client import ServeEvaluator
        from serve.evaluator import evaluator_app

        view.status(f"Starting the evaluator{shortage}")
        start_serve()
        app = evaluator_app(
            build_evaluators(config, self._tasks, access),
            replicas=config.num_replicas,
            examples_at_once=config.examples_at_once,
            cpus=config.cluster.evaluator_cpus,
            drain_s=0,  # only this session calls it: calls that are in flight at its end would be wasted
            start_recording=metrics.recorder_for("evaluator"),
        )
        handle = stack.enter_context(deployed(app, self._name, route_prefix=None))
        if specs:
            view.status(f"Starting the embedded model{shortage}")
            models.wait()
        metrics.ready()
        stack.callback(metrics.finish)
        evaluators = {task.name: ServeEvaluator(handle, task.name) for task in self._tasks}
        return Services(evaluators, access, actors, metrics)


def placement(config: RunConfig, metrics: Metrics) -> Placement:
    """How a run's trajectories are distributed over actors."""
    cluster, start_recording = config.cluster, metrics.recorder_for("trajectories")
    return Placement(config.trajectories_per_actor, cluster.actor_cpus, cluster.actor_restarts, start_recording)


def preloaded(config: RunConfig) -> Sequence[str]:
    """Modules that an actor loads while it starts; see ``actors.trajectory_actor``."""
    trajectory = config.optimizer.direction.trajectory
    is_relevant = isinstance(trajectory, RetrievalConfig) and trajectory.by in ("relevance", "mixed")
    if is_relevant and isinstance(config.models.embedding, EmbeddedEmbeddingConfig):
        return (*_PRELOADED, "gpo.models.embedding:word_vectors")
    return _PRELOADED
