from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import yaml

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint

if TYPE_CHECKING:
    from tests.e2e.conftest import Finished, Gpo, Until, WriteConfig

TRIALS, STEPS = 6, 3
SPACE = {
    "optimizer.schedule.initial": {"low": 5, "high": 60},
    "optimizer.direction.trajectory.by": {"choices": ["recency", "importance", "relevance"]},
}


def _document(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "sweep.json").read_text(encoding="utf-8")))


def _sweep(trials: int, **more: Any) -> dict[str, Any]:
    return {"trials": trials, "max_parallel_trials": 2, "space": SPACE, "lease_s": 4, **more}


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_is_killed(
    gpo: Gpo, tmp_path: Path, write_config: WriteConfig, until: Until
) -> None:
    trials = 10
    with SimulatedEndpoint(Behaviour(latency_s=0.2)) as endpoint:
        config = write_config(
            tmp_path,
            endpoint.base_url,
            optimizer={"steps": STEPS, "candidates": 2},
            sweep=_sweep(trials, storage=f"sqlite:///{tmp_path}/study.db", pruner={"kind": "none"}),
        )
        doomed, other = (gpo.start("sweep", config, "--run-dir", name, cwd=tmp_path) for name in ("doomed", "other"))
        for name in ("doomed", "other"):
            until(
                lambda name=name: any(tmp_path.glob(f"{name}/trials/*/trajectories/*/*.msgpack")), f"{name} is at work"
            )
        for number in (doomed.process.pid, *doomed.numbers()):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        ended = other.finish()
        assert ended.code == 0, ended.stderr
        study = optuna.load_study(study_name="triage", storage=f"sqlite:///{tmp_path}/study.db")
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * trials
        assert any("/doomed/" in trial.user_attrs["folder"] for trial in study.trials)
        # Nothing is paid for twice but what was under way when the one was killed, or asked by both at once.
        paid = Counter((call.model, call.content) for call in endpoint.requests if call.model and call.status == 200)
        assert sum(count - 1 for count in paid.values()) <= 64


@pytest.fixture(scope="module")
def finished(gpo: Gpo, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("sweep")
    with SimulatedEndpoint() as endpoint:
        config = write_config(
            folder,
            endpoint.base_url,
            optimizer={"steps": STEPS, "candidates": 2},
            sweep=_sweep(
                TRIALS,
                pruner={"kind": "median", "startup_trials": 1, "min_steps": 1},
                holdout={"tasks": [yaml.safe_load(_other_task())], "seeds": [0]},
            ),
        )
        ended = gpo("sweep", config, "--run-dir", "results", cwd=folder)
        assert ended.code == 0, ended.stderr
        again = gpo("run", "results/best_config.yaml", "--run-dir", "best", cwd=folder)
        assert again.code == 0, again.stderr
    return ended, folder


def _other_task() -> str:
    triage = Path(__file__).resolve().parents[1] / "data" / "triage"
    return f"""
        name: desks
        data: {{train: {triage}/train.jsonl, val: {triage}/val.jsonl, test: {triage}/test.jsonl}}
        fields: {{input: text, target: label}}
        prompt: Which desk is it?
        position: question_begin
        answer: {{kind: exact}}
    """


def test_a_sweep_leaves_its_figures_report_and_a_configuration_that_gives_its_score_again(
    finished: tuple[Finished, Path],
) -> None:
    ended, folder = finished
    document = _document(folder / "results")
    assert document["status"] == "completed"
    assert document["trials"]["complete"] + document["trials"]["pruned"] == TRIALS
    best = document["best"]
    rows = json.loads((folder / "best" / "summary.json").read_text(encoding="utf-8"))["trajectories"]
    assert sum(row["best"]["val"] for row in rows) / len(rows) == pytest.approx(best["val"], abs=1e-4)
    assert "Plotly.newPlot(" in (folder / "results" / "report.html").read_text(encoding="utf-8")
    assert document["confirmation"]["statement"] in ended.stdout
    # ``test`` is for the confirmation alone.
    trial = json.loads((folder / "results" / "trials" / "0000" / "summary.json").read_text(encoding="utf-8"))
    assert all(row["initial"]["test"] is None for row in trial["trajectories"])


def test_the_dashboard_opens_the_study(finished: tuple[Finished, Path]) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    app = dashboard.wsgi(_document(finished[1] / "results")["study"]["storage"])
    (study,) = _get(app, "/api/studies")["study_summaries"]
    assert study["study_name"] == "triage"
    trials = _get(app, f"/api/studies/{study['study_id']}")["trials"]
    assert len(trials) == TRIALS
    assert trials[0]["intermediate_values"]


def _get(app: Any, path: str) -> dict[str, Any]:
    from wsgiref.util import setup_testing_defaults

    environment: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
    setup_testing_defaults(environment)
    status: list[str] = []
    body = b"".join(app(environment, lambda line, headers, *_: status.append(line)))
    assert status[0].startswith("200"), body
    return dict(json.loads(body))
