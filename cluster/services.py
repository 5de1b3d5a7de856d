"""What a run has standing while its searches work: the embedded model servers and the evaluator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import ray
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from cluster.build import EmbeddedUrls
from cluster.ray_session import distinct_hosts
from gpo.errors import ConfigError, ModelUnavailable
from gpo.evaluation import LocalEvaluator
from serve.embedded_model import HOST, EmbeddedModelServer, EmbeddedModelSpec, free_port
from serve.evaluator import evaluator_app

EMBEDDED_CPUS = 1.0
_EMBEDDED_RESTARTS = 10
_START_TIMEOUT_S = 180.0


@asynccontextmanager
async def embedded_models(specs: Sequence[EmbeddedModelSpec]) -> AsyncIterator[EmbeddedUrls]:
    """Servers for the embedded models, up and healthy; they end with the context.

    Raises:
        ConfigError: the cluster has several machines; the servers can be reached on one.
        ModelUnavailable: a server did not come up.
    """
    if specs and distinct_hosts() > 1:
        raise ConfigError(
            "models", "an embedded model serves one machine, and this cluster has several", "use an endpoint instead"
        )
    actor_class: Any = ray.remote(EmbeddedModelServer)
    actors: list[Any] = []
    try:
        urls: dict[EmbeddedModelSpec, str] = {}
        for spec in specs:
            port = free_port()
            actor = actor_class.options(num_cpus=EMBEDDED_CPUS, max_restarts=_EMBEDDED_RESTARTS).remote(spec, port)
            actors.append(actor)
            urls[spec] = await _healthy(actor, spec, port)
        yield urls
    finally:
        for actor in actors:
            ray.kill(actor)


async def _healthy(actor: Any, spec: EmbeddedModelSpec, port: int) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    try:
        url: str = await asyncio.wait_for(actor.base_url.remote(), _START_TIMEOUT_S)
        while time.monotonic() < deadline:
            if await asyncio.to_thread(_answers, f"http://{HOST}:{port}/health"):
                return url
            await asyncio.sleep(0.1)
    except (ray.exceptions.RayError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[-1:] or ["no answer"]
        raise ModelUnavailable(f"the embedded model {spec.name} did not start: {reason[0]}") from error
    raise ModelUnavailable(f"the embedded model {spec.name} was not ready within {_START_TIMEOUT_S:.0f} s")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as reply:  # noqa: S310  # our own server on the loopback interface
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


@contextmanager
def evaluator(
    name: str, evaluators: Sequence[LocalEvaluator], *, replicas: int, cpus: float
) -> Iterator[DeploymentHandle[Any]]:
    """The evaluator's Serve application, ready for requests by handle; deleted with the context.

    Args:
        name: of the application; two of one name would replace each other.
    """
    app = evaluator_app(evaluators, replicas=replicas, cpus=cpus)
    ray_serve.start(proxy_location="Disabled")
    handle = ray_serve.run(app, name=name, route_prefix=None)
    try:
        yield handle
    finally:
        ray_serve.delete(name, _blocking=False)
