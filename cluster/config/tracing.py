"""Section ``tracing``: OpenTelemetry traces of steps."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from actors.search import SearchKey
from cluster.config.addresses import HttpAddress
from cluster.config.section import Section
from gpo.errors import ConfigError
from gpo.optimizer import GPO


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
        from actors.tracing.spans import Tracing
        from actors.tracing.traced import traced

        tracing = Tracing(run, self.otlp, self.prompts)
        return lambda gpo, key: traced(gpo, tracing, key)


def _untraced(gpo: GPO, _: SearchKey) -> GPO:
    return gpo


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
