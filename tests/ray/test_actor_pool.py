from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ray

from cluster.config.observability import MetricsConfig
from cluster.monitoring.run_metrics import Metrics
from cluster.session.actor_pool import ActorPool
from cluster.session.ray_connection import ray_connection
from cluster.session.session import Services

if TYPE_CHECKING:
    from tests.ray.conftest import MakeConfig


def _pid(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=60))


def _free_cpus() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


async def test_returned_actors_are_reused_first_and_free_their_cpus_in_the_end(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(tmp_path, "http://127.0.0.1:9", cluster={"actor_cpus": 1.0})
    with ray_connection("local", cpus_needed=2):
        total = _free_cpus()
        services = Services({}, cast("Any", None), [], Metrics(MetricsConfig(), "r", is_alone=True))
        pool = ActorPool(config, services)
        taken, pids = [], []
        for _ in range(int(total)):  # no CPU is left for the spare actor that the pool starts
            taken.append(next(pool))
            pids.append(_pid(taken[-1]))
        assert len(set(pids)) == total
        for actor in taken:
            assert ray.get(actor.stop.remote(False))
            assert pool.takes_back
            pool.give_back(actor)
        again = [next(pool) for _ in taken]
        assert sorted(map(_pid, again)) == sorted(pids)

        await pool.last()
        assert not pool.takes_back
        pool.give_back(again.pop())  # returned after the pool was closed
        await pool.last()
        async with asyncio.timeout(120):
            while _free_cpus() != 1.0:  # noqa: ASYNC110  # Ray sends no event
                await asyncio.sleep(0.1)
        await pool.end()
        for actor in again:
            ray.kill(actor)
