from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pydantic import ValidationError

from actors.search import SearchKey
from actors.tracing import Tracing, traced, use
from cluster.config.observability import TracingConfig
from gpo.data.example import Example
from gpo.errors import ConfigError, EvaluationError
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.strategies.batches import TrainBatches
from gpo.strategies.reflection import Reflection
from gpo.testing.fakes import FakeEvaluator, FakeProposer
from gpo.trajectory import Candidate, Trajectory
from tests.optimizers import fake_optimizer
from tests.servers import Receiver

KEY = SearchKey("triage", 3)
INITIAL = Prompt("secret words")


class Reflecting:
    async def reflect(self, current: Candidate, batch: object, *, seed: int) -> Reflection:
        return Reflection("too short")


def rewrite(current: Candidate, n: int, seed: int) -> list[str]:
    return [f"{current.prompt.text} {seed % 1000 + index}" for index in range(n)]


def values(prompt: Prompt) -> list[float]:
    return [int(digit, 16) / 15 for digit in prompt.id[:4]]


def optimizer(num_steps: int = 2) -> GPO:
    train = [Example(f"input {number}", ("answer",)) for number in range(4)]
    return fake_optimizer(
        proposer=FakeProposer(rewrite),
        evaluator=FakeEvaluator(values),
        num_steps=num_steps,
        num_candidates=3,
        num_neighbours=2,
        train=train,
        batches=TrainBatches(len(train), batch_size=2, seed=1),
        num_exemplars=1,
        seed=1,
    )


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def tracing_to(exporter: InMemorySpanExporter, *, shows_prompts: bool = False) -> Tracing:
    tracing = Tracing(f"run-{uuid4().hex}", "http://nowhere", shows_prompts)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use(tracing, provider)
    return tracing


async def search(gpo: GPO) -> Trajectory:
    trajectory = await gpo.start(INITIAL)
    async for later in gpo.run(trajectory):
        trajectory = later
    return trajectory


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_every_step_is_a_trace_with_its_parts(exporter: InMemorySpanExporter) -> None:
    tracing = tracing_to(exporter)
    trajectory = await search(traced(optimizer(), tracing, KEY))
    # Tracing does not change the result.
    assert trajectory == await search(optimizer())
    spans = exporter.get_finished_spans()
    steps = [span for span in spans if span.name == "step"]
    assert [attributes(step)["gpo.step"] for step in steps] == [0, 1]
    for step, taken in zip(steps, trajectory.steps, strict=True):
        assert step.parent is None
        parts = [span for span in spans if span.parent and span.parent.span_id == step.context.span_id]
        assert Counter(part.name for part in parts) == {"retrieve": 1, "propose": 1, "evaluate": 3, "accept": 1}
        for part in [step, *parts]:
            about = attributes(part)
            assert part.context.trace_id == step.context.trace_id
            assert part.start_time >= step.start_time
            assert part.end_time <= step.end_time
            known = [about[name] for name in ("gpo.run", "gpo.task", "gpo.seed", "gpo.trajectory", "gpo.step")]
            assert known == [tracing.run, "triage", 3, "triage/3", taken.index]
        found = attributes(step)
        assert found["gpo.step_size"] == taken.step_size
        assert found["gpo.val"] == taken.successor.score.mean
        scores = {
            attributes(part)["gpo.prompt_id"]: attributes(part)["gpo.val"] for part in parts if part.name == "evaluate"
        }
        assert scores == {candidate.prompt.id: candidate.score.mean for candidate in taken.candidates}
        (accepted,) = (attributes(part) for part in parts if part.name == "accept")
        assert accepted["gpo.prompt_id"] == taken.successor.prompt.id
    assert len(spans) == 2 * 7


@pytest.mark.parametrize("shows_prompts", [False, True])
async def test_spans_hold_prompts_only_if_configured(exporter: InMemorySpanExporter, *, shows_prompts: bool) -> None:
    await search(traced(optimizer(), tracing_to(exporter, shows_prompts=shows_prompts), KEY))
    texts = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert ("secret words" in texts) is shows_prompts


async def test_a_failed_span_names_only_the_type_of_the_error(exporter: InMemorySpanExporter) -> None:
    class Failing(FakeEvaluator):
        async def evaluate(self, prompts, split, indices=None):
            if prompts != [INITIAL]:
                raise EvaluationError("secret words are in here")
            return await super().evaluate(prompts, split, indices)

    failing = Failing(lambda prompt: [0.5])
    gpo = traced(replace(optimizer(), evaluator=failing, reflector=Reflecting()), tracing_to(exporter), KEY)
    with pytest.raises(EvaluationError):
        await search(gpo)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"step", "retrieve", "reflect", "evaluate"} <= set(spans)
    for name in ("step", "evaluate"):
        assert spans[name].status.status_code is StatusCode.ERROR
        assert spans[name].status.description == "EvaluationError"
    assert "secret words" not in "".join(span.to_json() for span in spans.values())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


async def test_a_receiver_has_all_spans_when_the_trajectory_ends(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pickled, as on the way to an actor, which reads the key from its environment.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc")
    tracing = Tracing("night", receiver.url)
    carried = pickle.loads(pickle.dumps(traced(optimizer(), tracing, KEY)))  # noqa: S301
    assert carried.tracing == tracing
    await search(carried)
    resources = [resource for request in receiver.requests for resource in request.resource_spans]
    about = {item.key: item.value.string_value for resource in resources for item in resource.resource.attributes}
    assert about["service.name"] == "gpo"
    assert about["gpo.run"] == "night"
    assert Counter(span.name for span in receiver.spans()) == {
        "step": 2,
        "retrieve": 2,
        "propose": 2,
        "evaluate": 6,
        "accept": 2,
    }
    assert set(receiver.headers) == {"abc"}


async def test_a_missing_receiver_ends_no_trajectory(caplog: pytest.LogCaptureFixture) -> None:
    gpo = optimizer(1)
    gone = Receiver()
    gone.close()
    assert await search(traced(gpo, Tracing("away", gone.url), KEY)) == await search(gpo)


def test_nothing_is_traced_or_imported_unless_a_receiver_is_configured() -> None:
    code = (
        "import sys; from cluster.config.observability import TracingConfig; gpo = object()\n"
        "assert TracingConfig().build('run')(gpo, None) is gpo\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("address", ["collector:4318", "http://user:pw@collector:4318", "grpc://collector:4317"])
def test_an_address_is_checked_and_never_shown(address: str) -> None:
    with pytest.raises(ValidationError, match="without user or password") as refused:
        TracingConfig.model_validate({"otlp": address})
    assert "pw" not in refused.value.errors()[0]["msg"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    TracingConfig(otlp="http://collector:4318").require_package()
    monkeypatch.setattr("cluster.config.observability.find_spec", lambda name: None)
    TracingConfig().require_package()
    with pytest.raises(ConfigError, match="opentelemetry-exporter-otlp-proto-http"):
        TracingConfig(otlp="http://collector:4318").require_package()
