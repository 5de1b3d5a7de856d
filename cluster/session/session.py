"""What stands while runs work: Ray, the embedded models and the evaluator."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from actors.limiter import LimiterActor
from actors.slots import Placement
from cluster.config import RunConfig
from cluster.config.models import EmbeddedEmbeddingConfig
from cluster.config.optimizer import RetrievalConfig
from cluster.display.progress import Announcing
from cluster.session.models import Access, build_evaluators, embedded_specs
from cluster.session.ray_session import EMBEDDED_CPUS, cpus_missing, ray_session
from gpo.data.task import Task

if TYPE_CHECKING:
    from cluster.metrics.run_metrics import Metrics
    from serve.client import ServeEvaluator

_SERVE = "cluster.session.deployments"
_PRELOADED = ("serve.client", "gpo.models.openai")
"""What every trajectory's process needs."""


@dataclass(frozen=True, slots=True)
class Services:
    """How to reach what stands.

    Attributes:
        evaluators: task name → its evaluator.
        access: how the models are reached.
        actors: actors that stand ready for the first run's trajectories.
        metrics: what counts, and tells what was counted.
    """

    evaluators: Mapping[str, ServeEvaluator]
    access: Access
    actors: list[Any]
    metrics: Metrics

    def take_actors(self) -> list[Any]:
        """The actors that stand ready, for one run: they end with it."""
        taken = list(self.actors)
        self.actors.clear()
        return taken


def placement(config: RunConfig, metrics: Metrics) -> Placement:
    """How a run's trajectories are spread."""
    cluster, recording = config.cluster, metrics.recording("trajectories")
    return Placement(config.trajectories_per_actor, cluster.actor_cpus, cluster.actor_restarts, recording)


class Session:
    """A context in which runs on the same tasks and models share what they need; all of it ends with the context.

    Nothing is started before it is asked for: a run that is complete already needs none of it.

    Args:
        name: of the evaluator's application; two of one name on a cluster would replace each other.
        address: of the Ray cluster, as for ``ray_session``.
        num_actors: that carry trajectories at once; left out, those of one run of the configuration.
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
    ) -> None:
        self._config, self._tasks, self._name, self._address, self._view = config, tasks, name, address, view
        self._num_actors = num_actors or config.num_actors
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Have it stand now; else it is started when the services are asked for first."""
        _ = self.services

    @cached_property
    def services(self) -> Services:
        """Started at the first use, synchronously: outside an event loop, so that Ctrl-C works meanwhile.

        Raises:
            ConfigError: there is no cluster at the address.
            ClusterError, ModelUnavailable: something did not come up.
        """
        config, view = self._config, self._view
        # Loading Serve takes as long as half of Ray's start, which mostly waits for other processes.
        loading = Thread(target=import_module, args=(_SERVE,), daemon=True)
        loading.start()
        specs = embedded_specs(config)
        cluster = config.cluster
        cpus = (
            self._num_actors * cluster.actor_cpus
            + config.num_replicas * cluster.evaluator_cpus
            + len(specs) * EMBEDDED_CPUS
        )
        view.status("Starting Ray" if self._address == "local" else f"Connecting to Ray at {self._address}")
        self._stack.enter_context(ray_session(self._address, cpus_needed=cpus))
        loading.join()
        from cluster.metrics.run_metrics import exported
        from cluster.session.deployments import embedded_models, evaluator, start_serve
        from serve.client import ServeEvaluator

        missing = cpus_missing(cpus)
        shortage = f" (the cluster has {missing:g} CPUs too few; it must grow, or this waits)" if missing else ""
        metrics = self._stack.enter_context(
            exported(config.metrics, self._name.removeprefix("gpo-"), is_alone=self._address == "local")
        )
        if specs:
            view.status(f"Starting the embedded model{shortage}")
        urls = self._stack.enter_context(embedded_models(specs))
        view.status(f"Starting the evaluator{shortage}")
        start_serve()
        # Their processes take seconds to load what they need: better now, beside the evaluator's.
        limiter = LimiterActor().start()
        spread, number = placement(config, metrics), min(self._num_actors, os.cpu_count() or 1)
        actors = [spread.start_actor(preloaded(config)) for _ in range(number)]
        access = Access(urls, limiter, budget_name=self._name)
        handle = self._stack.enter_context(
            evaluator(
                self._name,
                build_evaluators(config, self._tasks, access),
                replicas=config.num_replicas,
                examples_at_once=config.examples_at_once,
                cpus=cluster.evaluator_cpus,
                recording=metrics.recording("evaluator"),
            )
        )
        metrics.ready()
        self._stack.callback(metrics.finish)
        evaluators = {task.name: ServeEvaluator(handle, task.name) for task in self._tasks}
        return Services(evaluators, access, actors, metrics)


def preloaded(config: RunConfig) -> Sequence[str]:
    """What a trajectory's process loads before it is told what to do; see ``actors.trajectory_actor``."""
    trajectory = config.optimizer.direction.trajectory
    is_relevant = isinstance(trajectory, RetrievalConfig) and trajectory.by == "relevance"
    if is_relevant and isinstance(config.models.embedding, EmbeddedEmbeddingConfig):
        return (*_PRELOADED, "gpo.models.embedding:word_vectors")
    return _PRELOADED
