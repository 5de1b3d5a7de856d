"""Sections ``metrics``, ``tracing`` and ``tracking``: what a run shows to Prometheus, OpenTelemetry and MLflow."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from actors.search import SearchKey
from cluster.config.secrets import HttpAddress
from cluster.config.section import Section
from gpo.errors import ConfigError
from gpo.optimizer import GPO


class MetricsConfig(Section):
    """Where a Prometheus finds the run's metrics. Nothing is counted or listens unless a port or a gateway is given."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port at which one exporter on the head node answers scrapes, for all runs on a cluster that name this port; a run
    that starts Ray itself answers in its own process, at a loopback host. 0 takes a free one, which ``gpo monitor``
    finds."""
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]+$")] = "127.0.0.1"
    """Address to listen at. Beyond loopback, everybody who reaches it can read names of tasks and models, scores and
    cost: there is no password."""
    linger_s: Annotated[float, Field(ge=0)] = 20.0
    """Seconds that a run waits, at the most, for a scrape that sees its last values: more than the scraper's interval.
    Only with a port; a run that is interrupted does not wait."""
    pushgateway: HttpAddress | None = None
    """Address of a Prometheus Pushgateway, such as ``http://HOST:9091``, where the last values are left at the end of
    the run, for runs that are shorter than a scraper's interval."""

    @property
    def is_on(self) -> bool:
        """Whether anything is counted at all."""
        return self.port is not None or self.pushgateway is not None


class TracingConfig(Section):
    """Where spans of steps go: of each step one, and in it those of its parts. Nothing is traced without ``otlp``.

    All else is read by each process from its own ``OTEL_…`` variables, such as ``OTEL_EXPORTER_OTLP_HEADERS``, where a
    key belongs.
    """

    otlp: HttpAddress | None = None
    """Address of a receiver of OTLP over HTTP, such as ``http://HOST:4318``, which every node reaches."""
    prompts: bool = False
    """Whether the texts of prompts are in the spans, beside their ids and scores."""

    def require_package(self) -> None:
        """Say so before anything is started.

        Raises:
            ConfigError: a package that it takes is not installed.
        """
        if self.otlp is not None and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
            raise ConfigError(
                "tracing.otlp",
                "needs the package opentelemetry-exporter-otlp-proto-http",
                "install it: pip install opentelemetry-exporter-otlp-proto-http",
            )

    def build(self, run: str) -> Callable[[GPO, SearchKey], GPO]:
        """What a search is put through before it travels to its actor."""
        if self.otlp is None:
            return _untraced
        # Loads OpenTelemetry's SDK.
        from actors.tracing import Tracing, traced

        tracing = Tracing(run, self.otlp, self.prompts)
        return lambda gpo, key: traced(gpo, tracing, key)


def _untraced(gpo: GPO, _: SearchKey) -> GPO:
    return gpo


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _store(uri: str) -> str:
    # A database's address holds a password more often than not, and would be in config.yaml.
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?|sqlite:////\S+", uri):
        raise PydanticCustomError(
            "tracking_uri", "is not like http://HOST:5000 or sqlite:////ABSOLUTE/FILE, without user or password"
        )
    return uri


class MlflowConfig(Section):
    """An MLflow server, or a database of its own on this machine.

    User and password, or a token, stand in the variables that MLflow reads (``MLFLOW_TRACKING_USERNAME``,
    ``MLFLOW_TRACKING_PASSWORD``, ``MLFLOW_TRACKING_TOKEN``).
    """

    uri: Annotated[str, AfterValidator(_store)]
    """``http://HOST:5000``, or a database in a file, ``sqlite:////ABSOLUTE/FILE``, with artifacts in a folder beside.
    Folders as stores, MLflow itself has given up."""
    experiment: Annotated[str, Field(min_length=1, max_length=250)] = "gpo"
    """Name of the experiment; it is made where it is missing."""


class TrackingConfig(Section):
    """Where runs are logged beside their own folder."""

    mlflow: MlflowConfig | None = None
    """Logs a run, each of its trajectories, and each trial of a sweep; left out, nothing is."""

    def require_package(self) -> None:
        """Say so before anything is started.

        Raises:
            ConfigError: a package that it takes is not installed.
        """
        if self.mlflow is not None and find_spec("mlflow") is None:
            raise ConfigError(
                "tracking.mlflow", "needs the package mlflow-skinny", "install it: pip install mlflow-skinny"
            )
