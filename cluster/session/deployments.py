"""What a run has standing while its searches work: the embedded model servers and the evaluator.

All of it is started synchronously, outside any event loop, so that Ctrl-C works while something is being waited for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import ray
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from cluster.session.models import EmbeddedUrls
from cluster.session.ray_session import EMBEDDED_CPUS, distinct_hosts
from gpo.errors import ClusterError, ConfigError, ModelUnavailable
from gpo.evaluation.evaluator import LocalEvaluator
from serve.embedded_model import HOST, EmbeddedModelServer, EmbeddedModelSpec, free_port
from serve.evaluator import evaluator_app

log = logging.getLogger(__name__)

_EMBEDDED_RESTARTS = -1
"""Always: how often a call is tried is bounded, and so is how often one can end its server."""
_START_TIMEOUT_S = 180.0


@contextmanager
def embedded_models(specs: Sequence[EmbeddedModelSpec]) -> Iterator[EmbeddedUrls]:
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
            urls[spec] = _healthy(actor, spec, port)
        yield urls
    finally:
        for actor in actors:
            with unfailing("ending the embedded model"):
                ray.kill(actor)


def _healthy(actor: Any, spec: EmbeddedModelSpec, port: int) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    try:
        url: str = ray.get(actor.base_url.remote(), timeout=_START_TIMEOUT_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ModelUnavailable(f"the embedded model {spec.name} did not start: {_last_line(error)}") from None
    while not _answers(f"http://{HOST}:{port}/health"):
        if time.monotonic() > deadline:
            raise ModelUnavailable(f"the embedded model {spec.name} was not ready within {_START_TIMEOUT_S:.0f} s")
        time.sleep(0.1)
    return url


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as reply:  # noqa: S310  # our own server on the loopback interface
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def start_serve() -> None:
    """Serve without HTTP: an evaluator that only a run calls needs none."""
    ray_serve.start(proxy_location="Disabled")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # starting it sets it to INFO


@contextmanager
def evaluator(
    name: str,
    evaluators: Sequence[LocalEvaluator],
    *,
    replicas: int,
    examples_at_once: int,
    cpus: float,
    recording: Callable[[], object] | None = None,
) -> Iterator[DeploymentHandle[Any]]:
    """The evaluator's Serve application, ready for requests by handle; deleted with the context.

    Args:
        name: of the application; two of one name would replace each other.
        evaluators: one per task.
        replicas: how many processes score side by side.
        examples_at_once: that each works on.
        cpus: what Ray reserves for each.
        recording: what counts in each of them.
    """
    # Nobody but this run calls it: once the run is over, or was interrupted, what it still does is money lost.
    app = evaluator_app(
        evaluators,
        replicas=replicas,
        examples_at_once=examples_at_once,
        cpus=cpus,
        drain_s=0,
        recording=recording,
    )
    with deployed(app, name, route_prefix=None) as handle:
        yield handle


@contextmanager
def deployed(app: ray_serve.Application, name: str, route_prefix: str | None) -> Iterator[DeploymentHandle[Any]]:
    """A Serve application that is up; deleted with the context, also where it never comes up.

    Raises:
        ClusterError: it does not come up.
    """
    target = ray_serve.RunTarget(app, name=name, route_prefix=route_prefix)
    try:
        try:
            (handle,) = ray_serve.run_many([target], wait_for_applications_running=False)
            problem = _problem(name)
        except (RuntimeError, ray.exceptions.RayError) as error:
            problem = _last_line(error)
        if problem:
            raise ClusterError(
                f"the evaluator did not come up: {problem} Serve's logs on the cluster say more; is this version "
                "of the program installed on all its nodes?"
            )
        yield handle
    finally:
        with unfailing("ending the evaluator"):
            ray_serve.delete(name, _blocking=False)


def _problem(name: str) -> str:
    """Wait until the application runs; why it never will, or nothing. Serve's own waiting looks once a second."""
    while True:
        app = ray_serve.status().applications.get(name)
        if app is not None and app.status is ApplicationStatus.RUNNING:
            return ""
        if app is not None and app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            return app.message.strip().rpartition("\n")[2] or app.status.value
        time.sleep(0.25)


@contextmanager
def unfailing(what: str) -> Iterator[None]:
    """Tidy up without hiding the error that may be under way: a cluster that has gone needs no tidying."""
    try:
        yield
    except Exception as error:
        log.warning("%s failed: %s", what, _last_line(error))


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
