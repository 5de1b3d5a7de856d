"""The logs, the traces and the MLflow runs of a run."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.servers import Receiver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tests.commands import Gpo
    from tests.configs import WriteConfig

pytestmark = pytest.mark.slow

SEEDS, STEPS, CANDIDATES = (0, 1), 2, 3
KEY = "otlp-key-of-the-test"


@dataclass(frozen=True, slots=True)
class Observed:
    """A run that has ended.

    Attributes:
        database: of MLflow.
    """

    results: Path
    spans: Sequence[Span]
    headers: Sequence[str | None]
    database: str

    def json(self, name: str) -> Any:
        return json.loads((self.results / name).read_text(encoding="utf-8"))

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.results / "steps.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def lines(self) -> list[dict[str, Any]]:
        files = sorted((self.results / "logs").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def observed(gpo: Gpo, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    pytest.importorskip("mlflow")
    folder, receiver = tmp_path_factory.mktemp("run"), Receiver()
    database = f"sqlite:///{folder}/mlflow.db"
    with closing(receiver), SimulatedEndpoint() as endpoint:
        config = write_config(
            folder,
            endpoint.base_url,
            run={"seeds": list(SEEDS)},
            preset="paper",  # a candidate is evaluated once
            optimizer={"steps": STEPS, "candidates": CANDIDATES},
            tracing={"otlp": receiver.url},
            tracking={"mlflow": {"uri": database, "experiment": "runs"}},
        )
        options = ("--log-format", "json", "--log-level", "info", "--log-to", "folder")
        env = {"OTEL_EXPORTER_OTLP_HEADERS": f"x-key={KEY}"}
        ended = gpo(*options, "run", config, "--run-dir", "results", cwd=folder, env=env)
    assert ended.code == 0, ended.stderr
    return Observed(folder / "results", receiver.spans(), receiver.headers, database)


def test_every_log_line_names_its_subject(observed: Observed) -> None:
    run_id = observed.json("summary.json")["run_id"]
    assert {line["run"] for line in observed.lines} == {run_id}
    # Nothing went wrong, so no line is a warning, even if the limiter ends before its callers.
    assert {line["level"] for line in observed.lines if line["logger"].startswith(("actors", "gpo"))} == {"INFO"}
    taken = [line for line in observed.lines if line["message"] == "step taken"]
    assert Counter((line["task"], line["trajectory"], line["step"]) for line in taken) == {
        ("triage", f"triage/{seed}", step): 1 for seed in SEEDS for step in range(STEPS)
    }
    accepted = {
        (f"{row['task']}/{row['seed']}", row["step"], candidate["val"])
        for row in observed.steps
        for candidate in row["candidates"]
        if candidate["prompt"] == row["successor"]
    }
    assert {(line["trajectory"], line["step"], round(line["val"], 4)) for line in taken} == accepted


def test_each_step_is_a_trace(observed: Observed) -> None:
    names = Counter(span.name for span in observed.spans)
    num_candidates = sum(len(row["candidates"]) for row in observed.steps)
    steps = len(SEEDS) * STEPS
    assert {name: names[name] for name in ("step", "retrieve", "propose", "accept")} == dict.fromkeys(
        ("step", "retrieve", "propose", "accept"), steps
    )
    assert names["evaluate"] == num_candidates
    roots = {span.span_id: span.trace_id for span in observed.spans if span.name == "step"}
    parts = [span for span in observed.spans if span.name != "step"]
    assert all(roots[span.parent_span_id] == span.trace_id for span in parts)
    assert set(observed.headers) == {KEY}
    everything = b"".join(file.read_bytes() for file in observed.results.rglob("*") if file.is_file())
    assert KEY.encode() not in everything


def test_trajectories_are_stored_in_mlflow(observed: Observed) -> None:
    from mlflow.tracking import MlflowClient

    client, summary = MlflowClient(observed.database), observed.json("summary.json")
    experiment = client.get_experiment_by_name("runs")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {summary["run_id"], *(f"triage/{seed}" for seed in SEEDS)}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for row in summary["trajectories"]:
        page = runs[f"triage/{row['seed']}"]
        points = client.get_metric_history(page.info.run_id, "val_best")
        assert [point.step for point in points] == list(range(STEPS + 1))
        assert points[-1].value == pytest.approx(row["best"]["val"], abs=1e-4)
        assert page.data.metrics["test_best"] == pytest.approx(row["best"]["test"], abs=1e-4)
    files = {file.path for file in client.list_artifacts(runs[summary["run_id"]].info.run_id)}
    assert files == {"summary.json", "best_prompts.json", "report.html"}
