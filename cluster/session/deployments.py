"""The deployment of the evaluator. It starts outside any event loop, so that Ctrl-C works while this waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from cluster.display.logs import log_failures
from cluster.session.interrupts import raise_if_stopped
from gpo.errors import ClusterError
from gpo.text import last_line


def start_serve() -> None:
    """Start Serve without HTTP: an evaluator that only a run calls needs none."""
    silence_serve()
    ray_serve.start(proxy_location="Disabled")


def silence_serve() -> None:
    """Let Serve log errors only. Its level would not do: importing and starting Serve both set it to INFO."""
    logging.getLogger("ray.serve").addFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextmanager
def deployed(app: ray_serve.Application, name: str, route_prefix: str | None) -> Iterator[DeploymentHandle[Any]]:
    """Deploy a Serve application and wait until it runs; deleted with the context, even if it never ran.

    Raises:
        ClusterError: it does not start.
    """
    target = ray_serve.RunTarget(app, name=name, route_prefix=route_prefix)
    try:
        try:
            (handle,) = ray_serve.run_many([target], wait_for_applications_running=False)
            problem = _problem(name)
        except (RuntimeError, ray.exceptions.RayError) as error:
            problem = last_line(error)
        if problem:
            raise ClusterError(
                f"the evaluator did not start: {problem} See Serve's logs on the cluster, and check that this version "
                "of gpo is installed on all nodes"
            )
        yield handle
    finally:
        with log_failures("ending the evaluator"):
            ray_serve.delete(name, _blocking=False)


def _problem(name: str) -> str:
    """Wait until the application runs; returns why it failed, or nothing. Serve's own wait polls only each second."""
    while True:
        raise_if_stopped()
        app = ray_serve.status().applications.get(name)
        if app is not None and app.status is ApplicationStatus.RUNNING:
            return ""
        if app is not None and app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            return last_line(app.message) or app.status.value
        time.sleep(0.25)
