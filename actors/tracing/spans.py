"""Where spans go: one exporter for each process, which sends them over OTLP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

Value = str | int | float | bool

_TIMEOUT_S = 2.0
"""For sending, further tries included. A search waits for it at its end, so it is shorter than the SDK's own."""
_TIMEOUT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_providers: dict[Tracing, TracerProvider] = {}
_step: ContextVar[tuple[Tracing, Span, dict[str, Value]] | None] = ContextVar("traced_step", default=None)


@dataclass(frozen=True, slots=True)
class Tracing:
    """How a run is traced. A value that travels to its processes; each of them connects for itself.

    What else the SDK knows, it reads from the process's own ``OTEL_…`` variables: headers with a key, certificates,
    sampling, sizes of batches.

    Attributes:
        run: what the spans belong to.
        endpoint: of an OTLP receiver over HTTP, without ``/v1/traces``.
        shows_prompts: whether the texts of prompts are among the attributes.
    """

    run: str
    endpoint: str
    shows_prompts: bool = False

    @property
    def provider(self) -> TracerProvider:
        """The process's own, made at its first use."""
        provider = _providers.get(self)
        if provider is None:
            named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "gpo"}
            provider = TracerProvider(resource=Resource.create({**named, "gpo.run": self.run}))
            timeout_s = None if any(map(os.environ.get, _TIMEOUT_VARIABLES)) else _TIMEOUT_S
            exporter = OTLPSpanExporter(endpoint=f"{self.endpoint.rstrip('/')}/v1/traces", timeout=timeout_s)
            provider.add_span_processor(BatchSpanProcessor(exporter))
            use(self, provider)
        return provider

    @contextmanager
    def step(self, attributes: dict[str, Value]) -> Iterator[Span]:
        """A span that the parts of a step, in this task and those that it starts, are put into.

        Args:
            attributes: that its parts have as well.
        """
        span = self._begun("step", attributes, None)
        _step.set((self, span, attributes))
        try:
            with _told(span):
                yield span
        finally:
            _step.set(None)

    def _begun(self, name: str, attributes: dict[str, Value], within: Span | None) -> Span:
        tracer = self.provider.get_tracer("gpo")
        context = set_span_in_context(within) if within is not None else None
        return tracer.start_span(name, context=context, attributes={"gpo.run": self.run, **attributes})

    def flush(self) -> None:
        """Send what waits; give up after some seconds where nobody takes it."""
        self.provider.force_flush()


def use(tracing: Tracing, provider: TracerProvider) -> None:
    """Give this process's spans to a provider."""
    _providers[tracing] = provider


@contextmanager
def part(name: str) -> Iterator[Span | None]:
    """A part of the step under way; nothing outside of steps."""
    step = _step.get()
    if step is None:
        yield None
        return
    tracing, whole, attributes = step
    with _told(tracing._begun(name, attributes, whole)) as span:
        yield span


@contextmanager
def _told(span: Span) -> Iterator[Span]:
    """How it ended, by the error's type alone: its text may quote a prompt or an answer."""
    try:
        yield span
    except Exception as error:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    except BaseException:
        span.set_attribute("gpo.cancelled", True)
        raise
    finally:
        span.end()
