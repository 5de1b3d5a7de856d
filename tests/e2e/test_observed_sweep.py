"""The dashboards and the MLflow runs of a sweep."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.measuring.access_log import CHAT
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.e2e.prometheus import Prometheus, home, monitored, queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Gpo
    from tests.configs import WriteConfig
    from tests.conftest import Until

# It starts Ray and a Prometheus, and MLflow creates its tables.
pytestmark = pytest.mark.slow

TRIALS, STEPS = 8, 3
PRICE = {"prompt": 1.0, "completion": 2.0}
OF_RUNS = ("gpo_trajectory", "gpo_step", "gpo_samples", "gpo_candidate", "gpo_examples", "gpo_trajectories")
"""Metrics of the trajectories of a run. A sweep does not export them: many of its trajectories have one name."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A sweep that has ended.

    Attributes:
        prometheus: that scraped it.
        database: of MLflow.
        answered: calls, as the endpoint counts them.
    """

    prometheus: Prometheus
    database: str
    results: Path
    answered: int

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads((self.results / "sweep.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def watched(
    gpo: Gpo, write_config: WriteConfig, until: Until, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("sweep")
    database = f"sqlite:///{folder}/mlflow.db"
    with (
        monitored(gpo, folder, until) as prometheus,
        # Long enough for Prometheus to find the sweep, which takes seconds.
        SimulatedEndpoint(Behaviour(latency_s=0.2, error_rate=0.03)) as endpoint,
    ):
        config = write_config(
            folder,
            endpoint.base_url,
            run={"seeds": [0, 1]},
            models={"task": {"price": PRICE}, "optimizer": {"price": PRICE}},
            optimizer={"steps": STEPS, "candidates": 2},
            metrics={"port": 0},
            budget={"calls": 100_000},
            tracking={"mlflow": {"uri": database, "experiment": "sweeps"}},
            sweep={
                "trials": TRIALS,
                "max_parallel_trials": 2,
                "space": {"optimizer.schedule.initial": {"low": 5, "high": 60}},
                "pruner": {"kind": "median", "startup_trials": 2, "min_steps": 1},
            },
        )
        ended = gpo("sweep", config, "--run-dir", "results", cwd=folder, env=home(folder))
        assert ended.code == 0, ended.stderr
        prometheus.look_back()
        answered = sum(call.status == 200 for call in endpoint.requests if call.path == CHAT)
        yield Watched(prometheus, database, folder / "results", answered)


def test_every_panel_for_sweeps_has_data(watched: Watched) -> None:
    prometheus, document = watched.prometheus, watched.document
    exported = {(state,): count for state, count in document["trials"].items() if state != "wanted"}
    assert prometheus.ask("sum by (state) (gpo_trials)") == exported
    assert sum(exported.values()) == TRIALS
    assert prometheus.one("gpo_sweep_best_objective") == pytest.approx(document["best"]["val"], abs=1e-4)
    # The endpoint may have answered the requests that were cancelled when a population was given up.
    outcomes = prometheus.ask("sum by (outcome) (gpo_model_requests_total)")
    assert outcomes["answered",] <= watched.answered <= outcomes["answered",] + outcomes["cancelled",]
    empty = [query for query in queries() if not prometheus.rows(query)]
    assert [query for query in empty if not any(name in query for name in OF_RUNS)] == []


def test_trials_are_stored_in_mlflow(watched: Watched) -> None:
    from mlflow.tracking import MlflowClient

    client, document = MlflowClient(watched.database), watched.document
    experiment = client.get_experiment_by_name("sweeps")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    by_kind = Counter(run.data.tags["gpo.kind"] for run in runs)
    assert by_kind == {"sweep": 1, "trial": TRIALS}
    (whole,) = (run for run in runs if run.data.tags["gpo.kind"] == "sweep")
    assert (whole.info.run_name, whole.info.status) == (document["sweep_id"], "FINISHED")
    assert {file.path for file in client.list_artifacts(whole.info.run_id)} == {"sweep.json", "report.html"}
    trials = [run for run in runs if run.data.tags["gpo.kind"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {whole.info.run_id}
    states = Counter({"FINISHED": "complete", "KILLED": "pruned"}[run.info.status] for run in trials)
    assert states == Counter({state: document["trials"][state] for state in ("complete", "pruned")})
    objectives = [value for run in trials for name, value in run.data.metrics.items() if name == "objective_val"]
    assert max(objectives) == pytest.approx(document["best"]["val"], abs=1e-4)
    assert all("optimizer.schedule.initial" in run.data.params for run in trials)
