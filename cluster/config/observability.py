"""Sections ``metrics``, ``tracing`` and ``tracking``: what a run shows to Prometheus, OpenTelemetry and MLflow."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from actors.search import Record, SearchKey
from cluster.config.secrets import HttpAddress
from cluster.config.section import Section, unfit
from gpo.errors import ConfigError
from gpo.optimizer import GPO


class MetricsConfig(Section):
    """Where Prometheus finds the run's metrics. Without a port or a gateway, nothing is counted and nothing listens."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port that answers scrapes. On a cluster, one exporter on the head node serves all runs that name this port; a run
    that starts Ray itself answers in its own process, on loopback. 0 takes a free port, which ``gpo monitor`` finds."""
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]+$")] = "127.0.0.1"
    """Address to listen on. Beyond loopback, anyone who can reach it can read names of tasks and models, scores and
    cost: there is no password."""
    linger_s: Annotated[float, Field(ge=0)] = 20.0
    """Most seconds that a finished run waits for a scrape of its last values; should exceed the scrape interval. Needs
    a port; an interrupted run does not wait."""
    pushgateway: HttpAddress | None = None
    """Address of a Prometheus Pushgateway, such as ``http://HOST:9091``. It receives the last values at the end of the
    run, for runs that are shorter than the scrape interval."""

    @property
    def is_on(self) -> bool:
        """Whether anything is counted."""
        return self.port is not None or self.pushgateway is not None


class RecordConfig(Section):
    """Which answers of the task model are kept, for reports and ``gpo show``."""

    answers: Literal["chosen", "all", "none"] = "chosen"
    """``chosen``: those of the initial prompt, of the prompt that each step chooses, and of the best one. ``all``:
    those of every prompt. Trials of sweeps record none."""
    calls: bool = False
    """Keep the model calls of programs with the answers, too: messages, reply, tokens and time. ``gpo show --example``
    prints them."""
    max_bytes: PositiveInt = 1_000_000_000
    """Most bytes of all files together, compressed. Later answers are not recorded then."""

    def build(self, num_searches: int) -> Record | None:
        """What each of the run's searches records."""
        if self.answers == "none":
            return None
        return Record(writes_all=self.answers == "all", max_bytes=max(1, self.max_bytes // num_searches))


class TracingConfig(Section):
    """Where spans are sent: one per step, which contains those of its parts. Without ``otlp``, nothing is traced.

    Every other OpenTelemetry setting comes from each process's ``OTEL_*`` environment variables, such as
    ``OTEL_EXPORTER_OTLP_HEADERS`` for a key.
    """

    otlp: HttpAddress | None = None
    """Address of a receiver of OTLP over HTTP, such as ``http://HOST:4318``, which every node can reach."""
    prompts: bool = False
    """Include the texts of prompts in the spans, in addition to their IDs and scores."""

    def require_package(self) -> None:
        """Check that the package is installed, before anything is started.

        Raises:
            ConfigError: it is not.
        """
        if self.otlp is not None and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
            raise ConfigError(
                "tracing.otlp",
                "needs the package opentelemetry-exporter-otlp-proto-http",
                "install it: pip install opentelemetry-exporter-otlp-proto-http",
            )

    def build(self, run: str) -> Callable[[GPO, SearchKey], GPO]:
        """A function that adds tracing to a search before it is sent to its actor."""
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
        raise unfit("is not like http://HOST:5000 or sqlite:////ABSOLUTE/FILE, without user or password")
    return uri


# Every class has a method ``register`` from its metaclass, which no code calls on this one.
warnings.filterwarnings("ignore", 'Field name "register" in "MlflowConfig" shadows', UserWarning)


class MlflowConfig(Section):
    """An MLflow server, or a database on this machine.

    Credentials come from MLflow's environment variables: ``MLFLOW_TRACKING_USERNAME`` and
    ``MLFLOW_TRACKING_PASSWORD``, or ``MLFLOW_TRACKING_TOKEN``.
    """

    uri: Annotated[str, AfterValidator(_store)]
    """``http://HOST:5000``, or a database file, ``sqlite:////ABSOLUTE/FILE``, with artifacts in a folder next to it. A
    folder cannot be a store, since MLflow no longer supports that."""
    experiment: Annotated[str, Field(min_length=1, max_length=250)] = "gpo"
    """Name of the experiment; created if it does not exist."""
    register: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)] | None = None
    """Name in MLflow's prompt registry under which a complete run registers its best prompt, with scores, intervals and
    run as tags. With several tasks, each has its own name: this one, a hyphen and the task's. Default: none is
    registered."""
    alias: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*$", max_length=100)] | None = None
    """Alias that the registered version gets, such as ``champion``; it is taken from an earlier version. The run does
    not compare its prompt with that version. Default: no alias."""

    @model_validator(mode="after")
    def _alias_needs_a_name(self) -> Self:
        if self.alias is not None and self.register is None:
            raise unfit("is set, but tracking.mlflow.register is not", at="alias")
        return self


class TrackingConfig(Section):
    """Where runs are logged, in addition to their own folder."""

    mlflow: MlflowConfig | None = None
    """Log runs, their trajectories and the trials of sweeps to MLflow. Default: no logging."""

    def require_package(self) -> None:
        """Check that the package is installed, before anything is started.

        Raises:
            ConfigError: it is not.
        """
        if self.mlflow is not None and find_spec("mlflow") is None:
            raise ConfigError(
                "tracking.mlflow", "needs the package mlflow-skinny", "install it: pip install mlflow-skinny"
            )
