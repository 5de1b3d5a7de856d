from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from actors.folder import Folder
from actors.search import SearchKey
from cluster.config import RunConfig
from cluster.config.loading import validate
from cluster.config.observability import MlflowConfig, TrackingConfig
from cluster.monitoring.tracking import parameters, tracked, tracked_sweep
from cluster.results.outputs import as_json
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.errors import ConfigError
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.score import Score
from gpo.testing.samples import candidate, dropped, trajectory

KEY = SearchKey("triage", 0)
WHOLE = trajectory(
    candidate("a", 0.0, 0.5),
    [candidate("b", 1.0, 0.5), candidate("c", 0.0, 0.0)],
    [candidate("d", 0.5, 0.5), dropped("e", 0.9)],
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shared by all tests: MLflow takes seconds to create its tables."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'runs.db'}"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, the tables and the first imports may take longer than the end of a run waits for them."""
    monkeypatch.setattr("cluster.monitoring.mlflow._LAST_WRITE_S", 280.0)


@pytest.fixture
def mlflow(database: str, request: pytest.FixtureRequest) -> MlflowConfig:
    return MlflowConfig(uri=database, experiment=request.node.name)


def rows(config: MlflowConfig) -> dict[str, Any]:
    """Name → run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(config.uri)
    experiment = client.get_experiment_by_name(config.experiment)
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def history(config: MlflowConfig, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return [(point.step, point.value) for point in MlflowClient(config.uri).get_metric_history(run.info.run_id, metric)]


def artifact(config: MlflowConfig, run: Any, name: str) -> str:
    from mlflow.tracking import MlflowClient

    return Path(MlflowClient(config.uri).download_artifacts(run.info.run_id, name)).read_text()


def run_config(mlflow: MlflowConfig | None, tmp_path: Path) -> RunConfig:
    (tmp_path / "data.jsonl").write_text('{"text": "x", "label": "y"}\n')
    model = {
        "base_url": "http://localhost:1/hidden",
        "sampling": {"temperature": 0.5, "extra": {"token": "hidden"}},
    }
    config = validate(
        {
            "run": {"seeds": [0, 1]},
            "models": {
                "task": {**model, "model": "task-model", "api_key_env": "HIDDEN"},
                "optimizer": {**model, "model": "opt"},
            },
            "tasks": [
                {
                    "name": "triage",
                    "data": dict.fromkeys(("train", "val", "test"), "data.jsonl"),
                    "fields": {"input": "text", "target": "label"},
                    "prompt": "Say y.",
                    "answer": {"kind": "exact"},
                }
            ],
            "optimizer": {"steps": 2, "candidates": 2},
        },
        base_dir=tmp_path,
    )
    return config.model_copy(update={"tracking": TrackingConfig(mlflow=mlflow)})


def record_of(*steps: int, status: str = "running") -> RunRecord:
    """A record with this many steps of each seed."""
    keys = tuple(SearchKey("triage", seed) for seed in range(len(steps)))
    checkpoints = {
        key: Checkpoint(replace(WHOLE, steps=WHOLE.steps[:number]), test={})
        for key, number in zip(keys, steps, strict=True)
    }
    return RunRecord("night-1", started_at=0.0, keys=keys, checkpoints=checkpoints, status=status)


def test_a_run_its_trajectories_and_its_files_are_written(mlflow: MlflowConfig, tmp_path: Path) -> None:
    config, folder, record = run_config(mlflow, tmp_path), Folder.at(str(tmp_path)), record_of(1, 0)
    with tracked(config, record, folder):
        checkpoint = Checkpoint(WHOLE, test={})
        test = Evaluation(Score((1.0, 0.5, 0.75)), Usage())
        record.checkpoints[KEY] = checkpoint.with_test(WHOLE.best.prompt, test)
        record.status, record.wall_s = "completed", 7.5
        folder.write("summary.json", b"{}")
        folder.write("report.html", b"<p>report</p>")
    found = rows(mlflow)
    assert set(found) == {"night-1", "triage/0", "triage/1"}
    whole, first, second = found["night-1"], found["triage/0"], found["triage/1"]
    assert [run.info.status for run in (whole, first, second)] == ["FINISHED"] * 3
    assert first.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert whole.data.params["optimizer.candidates"] == "2"
    assert whole.data.params["models.task.model"] == "task-model"
    assert first.data.params == {"task": "triage", "seed": "0"}
    assert history(mlflow, first, "val") == [(0, 0.25), (1, 0.75), (2, 0.5)]
    assert history(mlflow, first, "val_best") == [(0, 0.25), (1, 0.75), (2, 0.75)]
    assert history(mlflow, second, "val") == [(0, 0.25)]
    assert first.data.metrics["test_best"] == 0.75
    assert "test_best" not in second.data.metrics
    assert whole.data.metrics["val_best"] == pytest.approx((0.75 + 0.25) / 2)
    assert whole.data.metrics["wall_s"] == 7.5
    assert artifact(mlflow, whole, "report.html") == "<p>report</p>"
    # Neither the address nor anything that may be a secret.
    assert "hidden" not in str([run.to_dictionary() for run in found.values()]).lower()


def test_a_resumed_run_continues_in_the_same_mlflow_run(mlflow: MlflowConfig, tmp_path: Path) -> None:
    config, folder = run_config(mlflow, tmp_path), Folder.at(str(tmp_path))
    first = record_of(1)
    with tracked(config, first, folder):
        first.status = "interrupted"
    assert rows(mlflow)["triage/0"].info.status == "KILLED"
    second = record_of(2)
    with tracked(config, second, folder):
        second.status = "completed"
    found = rows(mlflow)
    assert set(found) == {"night-1", "triage/0"}
    assert found["triage/0"].info.status == "FINISHED"
    assert history(mlflow, found["triage/0"], "val") == [(0, 0.25), (1, 0.75), (2, 0.5)]


def test_the_best_prompt_of_a_complete_run_is_registered_once(mlflow: MlflowConfig, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow.uri)
    registering = mlflow.model_copy(update={"register": "triage-prompt", "alias": "champion"})
    config, folder = run_config(registering, tmp_path), Folder.at(str(tmp_path))
    record = record_of(0)
    search = trajectory(candidate("a", 0.0, 0.5), [candidate("b", 1.0, 0.5)])
    test = Evaluation(Score((1.0, 0.5, 0.75)), Usage())
    record.checkpoints[KEY] = Checkpoint(search, test={}).with_test(search.best.prompt, test)
    for status in ("interrupted", "completed", "completed"):  # the last one is resumed after its end
        with tracked(config, record, folder):
            record.status = status  # type: ignore[assignment]
        versions = client.search_model_versions("name = 'triage-prompt' and tags.`mlflow.prompt.is_prompt` = 'true'")
        assert len(versions) == (status == "completed")
    prompt = client.get_prompt_version_by_alias("triage-prompt", "champion")
    assert (prompt.version, prompt.template) == (1, "b")
    whole = rows(mlflow)["night-1"].info.run_id
    assert {tag: value for tag, value in prompt.tags.items() if tag.startswith("gpo.")} == {
        "gpo.run": "night-1", "gpo.mlflow_run": whole, "gpo.task": "triage", "gpo.seed": "0", "gpo.val": "0.7500",
        "gpo.val_scored": "2", "gpo.val_interval": prompt.tags["gpo.val_interval"], "gpo.test": "0.7500",
        "gpo.test_scored": "3", "gpo.test_interval": prompt.tags["gpo.test_interval"],
    }  # fmt: skip
    low, _, high, *_ = prompt.tags["gpo.val_interval"].split()
    assert 0 <= float(low) < 0.75 < float(high) <= 1
    # Another run takes the alias.
    record.run_id = "night-2"
    with tracked(config, record, folder):
        record.status = "completed"
    newest = client.get_prompt_version_by_alias("triage-prompt", "champion")
    assert (newest.version, newest.tags["gpo.run"]) == (2, "night-2")


def test_an_alias_needs_a_name() -> None:
    with pytest.raises(ValidationError, match=r"tracking\.mlflow\.register is not"):
        MlflowConfig(uri="http://host:5000", alias="champion")


def test_ended_trials_of_a_sweep_are_written_once(mlflow: MlflowConfig, tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path))
    folder.write("sweep.json", as_json({"sweep_id": "s"}))
    trials = [
        _trial(0, TrialState.COMPLETE, 0.7, {1: 0.5, 2: 0.7}),
        _trial(1, TrialState.PRUNED, None, {1: 0.1}),
        _trial(2, TrialState.RUNNING, None, {1: 0.2}),
    ]
    for _ in range(2):  # attempts
        with tracked_sweep(TrackingConfig(mlflow=mlflow), "s", ["val"], folder) as tell:
            tell(trials)
    found = rows(mlflow)
    assert {name: run.info.status for name, run in found.items()} == {
        "s": "KILLED", "trial 0": "FINISHED", "trial 1": "KILLED"
    }  # fmt: skip
    best = found["trial 0"]
    assert best.data.tags["mlflow.parentRunId"] == found["s"].info.run_id
    assert best.data.params == {"optimizer.candidates": "4"}
    assert history(mlflow, best, "val") == [(1, 0.5), (2, 0.7)]
    assert history(mlflow, best, "objective_val") == [(2, 0.7)]
    assert best.data.metrics["tokens"] == 20
    assert '"s"' in artifact(mlflow, found["s"], "sweep.json")


def _trial(number: int, state: TrialState, value: float | None, reached: dict[int, float]) -> FrozenTrial:
    trial = create_trial(
        state=state, value=value, intermediate_values=reached, user_attrs={"spent": [10, 20, 0.5]}
    )  # fmt: skip
    trial.number = number
    trial.params = {"optimizer.candidates": 4}
    return trial


def test_a_missing_server_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = run_config(MlflowConfig(uri="http://127.0.0.1:1"), tmp_path)
    with tracked(config, record_of(1), Folder.at(str(tmp_path))):
        pass
    assert "writing to MLflow at http://127.0.0.1:1 failed" in caplog.text


def test_nothing_is_written_or_imported_unless_a_store_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.monitoring.tracking.Writer", None)
    with tracked(run_config(None, tmp_path), record_of(1), Folder.at(str(tmp_path))):
        pass
    with tracked_sweep(TrackingConfig(), "s", ["val"], Folder.at(str(tmp_path))) as tell:
        tell([])


def test_parameters_are_the_options_that_may_affect_results(tmp_path: Path) -> None:
    known = parameters(run_config(None, tmp_path))
    assert known["run.seeds"] == "[0, 1]"
    assert known["models.task.sampling.temperature"] == 0.5
    assert {"optimizer.steps", "optimizer.schedule.kind", "evaluation.max_unscored"} <= set(known)
    assert not any(isinstance(value, float) and math.isnan(value) for value in known.values())
    assert not [name for name in known if "key" in name or "url" in name or "extra" in name]


@pytest.mark.parametrize(
    "uri", ["http://me:pw@host:5000", "postgresql://me:pw@host/db", "file:///runs", "databricks", "sqlite:///x"]
)
def test_a_store_is_checked_and_never_shown(uri: str) -> None:
    with pytest.raises(ValidationError, match="without user or password") as refused:
        MlflowConfig(uri=uri)
    assert "pw" not in refused.value.errors()[0]["msg"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrackingConfig(mlflow=MlflowConfig(uri="http://host:5000"))
    config.require_package()
    monkeypatch.setattr("cluster.config.observability.find_spec", lambda name: None)
    TrackingConfig().require_package()
    with pytest.raises(ConfigError, match="mlflow-skinny"):
        config.require_package()
