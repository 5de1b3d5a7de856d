"""The section ``cluster`` of the configuration: actors, evaluator replicas, and the CPUs that they reserve."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from cluster.config.section import OptionInfo, Section, VariableName, require_redis_url
from gpo.errors import ConfigError


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
    share_limits_env: Annotated[VariableName | None, OptionInfo(sensitive="url_variable")] = None
    """Environment variable with the address of a Redis server, such as ``redis://:password@host:6379/1``; every node
    needs it. Clusters with the same server share ``max_concurrency``, ``requests_per_min`` and ``tokens_per_min`` of
    each endpoint in equal parts, at least 1 each. Default: the limits hold for this cluster alone."""

    def shared_limits(self) -> str:
        """``share_limits_env``, if limits can be shared; empty if they are not.

        Raises:
            ConfigError: the variable is not set, or the package is not installed.
        """
        name = self.share_limits_env
        if name is None:
            return ""
        require_redis_url(name, "cluster.share_limits_env")
        if find_spec("redis") is None:
            raise ConfigError("cluster.share_limits_env", "needs the package redis", "install it: pip install redis")
        return name
