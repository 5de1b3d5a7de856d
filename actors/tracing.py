"""Traces of steps for OpenTelemetry; loaded only if a run asks for them.

A traced trajectory runs the same strategies as an untraced one; each is wrapped in a class that makes a span of its
calls. Each process sends its spans over OTLP by itself.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from actors.search import SearchKey
from gpo.data.task import Split
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.models.protocol import Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.runtime.context import current_caller
from gpo.score import finite
from gpo.scoring.candidates import Announce, silent
from gpo.strategies.acceptance import Acceptance
from gpo.strategies.proposer import OnPrompt, Proposals, Proposer, ignore_prompt
from gpo.strategies.reflection import NoReflection, Reflection, Reflector
from gpo.strategies.retrieval import Retriever
from gpo.strategies.summary import NoSummary, Summarizer
from gpo.trajectory import Candidate, Trajectory

Value = str | int | float | bool

_TIMEOUT_S = 2.0
"""For sending, including retries. A trajectory waits for it at its end, so it is shorter than the SDK's default."""
_TIMEOUT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_providers: dict[Tracing, TracerProvider] = {}
_step: ContextVar[tuple[Tracing, Span, dict[str, Value]] | None] = ContextVar("traced_step", default=None)


@dataclass(frozen=True, slots=True)
class Tracing:
    """How a run is traced. Pickles; each process connects by itself.

    Every other setting of OpenTelemetry's SDK (headers with a key, certificates, sampling, batch sizes) comes from the
    ``OTEL_*`` environment variables of each process.

    Attributes:
        run: value of the attribute ``gpo.run`` of every span.
        endpoint: of an OTLP receiver over HTTP, without ``/v1/traces``.
        shows_prompts: whether spans hold the texts of prompts.
    """

    run: str
    endpoint: str
    shows_prompts: bool = False

    @property
    def provider(self) -> TracerProvider:
        """The provider of this process, made at its first use."""
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
        """A span of a step. Parts of the step in this asyncio task, and in tasks that it starts, become its children.

        Args:
            attributes: of the span and of its children.
        """
        span = self._start("step", attributes, None)
        _step.set((self, span, attributes))
        try:
            with _ended_with_status(span):
                yield span
        finally:
            _step.set(None)

    def _start(self, name: str, attributes: dict[str, Value], within: Span | None) -> Span:
        tracer = self.provider.get_tracer("gpo")
        context = set_span_in_context(within) if within is not None else None
        return tracer.start_span(name, context=context, attributes={"gpo.run": self.run, **attributes})

    def flush(self) -> None:
        """Send the spans that are left; give up after some seconds if the receiver does not answer."""
        self.provider.force_flush()


def use(tracing: Tracing, provider: TracerProvider) -> None:
    """Send the spans of this process to another provider."""
    _providers[tracing] = provider


@contextmanager
def part(name: str) -> Iterator[Span | None]:
    """A span of a part of the current step; ``None`` outside of steps."""
    step = _step.get()
    if step is None:
        yield None
        return
    tracing, whole, attributes = step
    with _ended_with_status(tracing._start(name, attributes, whole)) as span:
        yield span


@contextmanager
def _ended_with_status(span: Span) -> Iterator[Span]:
    """End the span with a status. It names only the type of an error: the text may quote a prompt or an answer."""
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


def traced(gpo: GPO, tracing: Tracing, key: SearchKey) -> GPO:
    """The same optimizer with traced strategies."""
    wrapped = replace(
        gpo,
        retriever=_Retriever(gpo.retriever),
        # Strategies that do nothing get no span.
        reflector=gpo.reflector if isinstance(gpo.reflector, NoReflection) else _Reflector(gpo.reflector),
        summarizer=gpo.summarizer if isinstance(gpo.summarizer, NoSummary) else _Summarizer(gpo.summarizer),
        proposer=_Proposer(gpo.proposer),
        evaluator=_Evaluator(gpo.evaluator, tracing.shows_prompts),
        acceptance=_Acceptance(gpo.acceptance, tracing.shows_prompts),
    )
    known: dict[str, Any] = {field.name: getattr(wrapped, field.name) for field in fields(wrapped)}
    return TracedGPO(**known, tracing=tracing, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedGPO(GPO):
    """A ``GPO`` that makes a span of each step."""

    tracing: Tracing
    key: SearchKey

    async def run(self, trajectory: Trajectory, announce: Announce = silent) -> AsyncGenerator[Trajectory, None]:
        try:
            async with aclosing(GPO.run(self, trajectory, announce)) as trajectories:
                while True:
                    if self.is_done(trajectory):
                        # Confirms the best prompt, or ends the search.
                        confirmed = await anext(trajectories, None)
                        if confirmed is None:
                            return
                        trajectory = confirmed
                    else:
                        taken = len(trajectory.steps)
                        with self.tracing.step(self._attributes(trajectory)) as span:
                            val_before = trajectory.current.score.mean
                            _note(span, resumed=trajectory.proposal is not None, val_before=val_before)
                            trajectory = await anext(trajectories)
                            while len(trajectory.steps) == taken:
                                yield trajectory
                                trajectory = await anext(trajectories)
                            _note_step(span, trajectory)
                    yield trajectory
        finally:
            # The process may end as soon as its trajectories have.
            await asyncio.to_thread(self.tracing.flush)

    def _attributes(self, trajectory: Trajectory) -> dict[str, Value]:
        return {
            "gpo.task": self.key.task,
            "gpo.seed": self.key.seed,
            "gpo.trajectory": current_caller.get() or str(self.key),
            "gpo.step": len(trajectory.steps),
        }


def _note_step(span: Span, trajectory: Trajectory) -> None:
    step, usage = trajectory.steps[-1], trajectory.steps[-1].spending
    _note(
        span,
        step_size=step.step_size,
        candidates=len(step.candidates),
        dropped=sum(candidate.is_dropped for candidate in step.candidates),
        val=step.successor.score.mean,
        val_best=trajectory.best.score.mean,
        cost_usd=usage.task.cost_usd + usage.optimizer.cost_usd + usage.judge.cost_usd,
    )


def _note(span: Span | None, **values: float | str | bool | None) -> None:
    """Set attributes of a span, except for ``None`` and NaN."""
    if span is None:
        return
    for name, value in values.items():
        known = finite(value) if isinstance(value, float) else value
        if known is not None:
            span.set_attribute(f"gpo.{name}", known)


def _note_usage(span: Span | None, usage: Usage) -> None:
    _note(
        span,
        requests=usage.requests,
        cached=usage.cached,
        retries=usage.retries,
        failures=usage.failures,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


@dataclass(frozen=True, slots=True)
class _Retriever:
    inner: Retriever

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        with part("retrieve") as span:
            found = await self.inner.retrieve(trajectory, k=k)
            _note(span, neighbours=len(found))
            return found


@dataclass(frozen=True, slots=True)
class _Reflector:
    inner: Reflector

    async def reflect(self, current: Candidate, batch: Sequence[int], *, seed: int) -> Reflection:
        with part("reflect") as span:
            reflection = await self.inner.reflect(current, batch, seed=seed)
            _note_usage(span, reflection.spending.optimizer)
            _note(span, failures=len(reflection.failures))
            return reflection


@dataclass(frozen=True, slots=True)
class _Summarizer:
    inner: Summarizer

    async def summarize(self, trajectory: Trajectory, *, seed: int) -> Reflection:
        with part("summarize") as span:
            reflection = await self.inner.summarize(trajectory, seed=seed)
            _note_usage(span, reflection.spending.optimizer)
            return reflection


@dataclass(frozen=True, slots=True)
class _Proposer:
    inner: Proposer

    async def propose(self, *arguments: Any, n: int, on_prompt: OnPrompt = ignore_prompt, **options: Any) -> Proposals:
        with part("propose") as span:
            proposals = await self.inner.propose(*arguments, n=n, on_prompt=on_prompt, **options)
            _note(
                span,
                asked=n,
                found=len(proposals.prompts),
                malformed=proposals.num_malformed,
                rejected=proposals.num_rejected,
                failed=proposals.num_failed,
                **Counter[str](proposals.broken),
            )
            _note_usage(span, proposals.usage)
            return proposals


@dataclass(frozen=True, slots=True)
class _Evaluator:
    inner: Evaluator
    shows_prompts: bool

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        with part("evaluate") as span:
            evaluations = await self.inner.evaluate(prompts, split, indices)
            # A step evaluates one prompt at a time.
            for prompt, evaluation in zip(prompts, evaluations, strict=True):
                score = evaluation.score
                _note(span, split=split.value, prompt_id=prompt.id, val=score.mean, examples=len(score.values_E))
                _note(span, unscored=score.num_unscored, prompt=prompt.text if self.shows_prompts else None)
                _note_usage(span, evaluation.usage)
            return evaluations


@dataclass(frozen=True, slots=True)
class _Acceptance:
    inner: Acceptance
    shows_prompts: bool

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        with part("accept") as span:
            chosen = self.inner.choose(trajectory, candidates)
            _note(span, prompt_id=chosen.prompt.id, val=chosen.score.mean, moved=chosen != trajectory.current)
            _note(span, prompt=chosen.prompt.text if self.shows_prompts else None)
            return chosen
