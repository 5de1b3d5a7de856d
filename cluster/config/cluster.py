"""The section ``cluster`` of the configuration: actors, evaluator replicas, and the CPUs that they reserve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from cluster.config.section import Section


class ClusterConfig(Section):
    """How the work is distributed over Ray."""

    trajectories_per_actor: PositiveInt | None = None
    """Trajectories that share one actor, and so one process. Default: 8, or more if that would need more than 16
    actors."""
    actor_cpus: Annotated[float, Field(ge=0)] = 0.1
    """CPUs that Ray reserves per trajectory actor; the actor mostly waits."""
    actor_restarts: NonNegativeInt = 3
    """How often a dead actor is restarted; its trajectories continue from their checkpoints."""
    evaluator_replicas: PositiveInt | None = None
    """Serve replicas of the evaluator, the processes that call the task model in parallel. Default: one per 64
    concurrent calls that the task model's ``max_concurrency`` allows, at most 8."""
    evaluator_cpus: Annotated[float, Field(ge=0)] = 0.1
    """CPUs that Ray reserves per replica."""
