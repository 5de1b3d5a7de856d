from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import optuna
import pytest

from actors.folder import Folder
from benchmarks.measuring.access_log import CHAT, UNWRITTEN_S
from benchmarks.simulated_endpoint import AccessRecord, Behaviour, SimulatedEndpoint
from cluster.config.sweep import UrlStorageConfig
from cluster.sweep.storage import open_storage
from tests.commands import best_without_a_cluster
from tests.configs import triage_task
from tests.paths import read_json
from tests.servers import Pushgateway, postgresql_server, redis_server

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo
    from tests.configs import WriteConfig
    from tests.conftest import Until

TRIALS, STEPS = 6, 3
PRICES = {"task-model": {"prompt": 0.25, "completion": 2.0}, "opt-model": {"prompt": 5.0, "completion": 1.0}}
"""Dollars per million tokens."""
SPACE = {
    "optimizer.schedule.initial": {"low": 5, "high": 60},
    "optimizer.direction.trajectory.by": {"choices": ["recency", "importance", "relevance"]},
}


def _document(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "sweep.json"))


def _sweep(trials: int, **more: Any) -> dict[str, Any]:
    return {"trials": trials, "max_parallel_trials": 2, "space": SPACE, "lease_s": 4, **more}


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a storage that several processes can share."""
    if request.param == "postgresql":
        with postgresql_server() as url:
            yield url
    elif request.param == "redis":
        with redis_server(tmp_path) as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path}/study.db"


@pytest.mark.slow
def test_a_process_completes_a_shared_study_after_another_one_was_killed(
    storage: str, gpo: Gpo, tmp_path: Path, write_config: WriteConfig, until: Until
) -> None:
    trials = 10
    with SimulatedEndpoint(Behaviour(latency_s=0.2)) as endpoint, closing(Pushgateway()) as gateway:
        config = write_config(
            tmp_path,
            endpoint.base_url,
            optimizer={"steps": STEPS, "candidates": 2},
            metrics={"pushgateway": gateway.url},
            sweep=_sweep(trials, storage=storage, pruner={"kind": "none"}),
        )
        doomed, other = (gpo.start("sweep", config, "--run-dir", name, cwd=tmp_path) for name in ("doomed", "other"))
        for name in ("doomed", "other"):
            until(
                lambda name=name: any(tmp_path.glob(f"{name}/trials/*/trajectories/*/*.msgpack")),
                f"{name} works",
            )
        killed_s = doomed.kill()
        ended = other.finish()
        assert ended.code == 0, ended.stderr
    study = optuna.load_study(
        study_name="triage", storage=open_storage(UrlStorageConfig(kind="url", url=storage), Folder.at(str(tmp_path)))
    )
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * trials
    # Both began trials, and none was begun twice.
    begun = [path.relative_to(tmp_path).parts for path in tmp_path.glob("*/trials/*")]
    assert {sweep for sweep, *_ in begun} == {"doomed", "other"}
    assert sorted(int(number) for *_, number in begun) == list(range(trials))
    assert not _repeated(endpoint.requests, killed_s)
    assert gateway.pushed, ended.stderr
    assert gateway.sums("gpo_trials", "state") == {
        **dict.fromkeys(("waiting", "running", "pruned", "failed"), 0), "complete": trials
    }  # fmt: skip
    (best,) = gateway.sums("gpo_sweep_best_objective", "run").values()
    assert best == study.best_value


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_and_a_budget_bounds_all_its_attempts(
    gpo: Gpo, tmp_path: Path, write_config: WriteConfig, until: Until
) -> None:
    with SimulatedEndpoint(Behaviour(latency_s=0.2)) as endpoint:
        config = write_config(
            tmp_path,
            endpoint.base_url,
            optimizer={"steps": STEPS, "candidates": 2},
            sweep=_sweep(TRIALS, objectives=["val", "tokens"]),
        )
        sweep = ("sweep", config, "--run-dir", "results")
        doomed = gpo.start(*sweep, cwd=tmp_path)
        until(lambda: _complete(tmp_path / "results") != {}, "a trial is complete")
        killed_s = doomed.kill()
        before = _complete(tmp_path / "results")
        paid = sum(call.path == CHAT and call.status == 200 for call in endpoint.requests)
        bounded = gpo(*sweep, "--resume", "--set", f"budget.calls={paid + 100}", cwd=tmp_path)
        assert bounded.code == 1, bounded.stderr
        assert "Stopped by budget.calls" in bounded.stderr
        assert _document(tmp_path / "results")["status"] == "budget_exhausted"
        over = gpo(*sweep, "--resume", "--deadline", "1", "--budget-ok", cwd=tmp_path)
        assert over.code == 0, over.stderr
        assert "Stopped by budget.wall_s" in over.stderr, "the earlier attempts took longer"
        ended = gpo(*sweep, "--resume", cwd=tmp_path)
        assert ended.code == 0, ended.stderr
    document = _document(tmp_path / "results")
    after = _complete(tmp_path / "results")
    assert len(after) == TRIALS
    assert {number: after[number] for number in before} == before
    assert set(document["pareto_front"]) <= set(after)
    assert document["best"]["number"] in document["pareto_front"]
    assert not _repeated(endpoint.requests, killed_s)


def _complete(folder: Path) -> dict[int, Any]:
    """Number → result of each complete trial; empty before ``sweep.json`` is written."""
    if not (folder / "sweep.json").exists():
        return {}
    return {row["number"]: row for row in _document(folder)["all"] if row["state"] == "complete"}


def _repeated(records: Sequence[AccessRecord], killed_s: float) -> list[AccessRecord]:
    """Calls repeated although the answer was stored: neither made by two at once nor lost at the kill."""
    answered: dict[tuple[str, str], list[AccessRecord]] = {}
    for record in sorted(records, key=lambda record: record.finished_s):
        if record.path == CHAT and record.status == 200:
            answered.setdefault((record.model, record.content), []).append(record)

    def is_lost(call: AccessRecord) -> bool:
        return call.started_s <= killed_s <= call.finished_s + UNWRITTEN_S

    return [
        again
        for same in answered.values()
        for before, again in pairwise(same)
        if again.started_s > before.finished_s + UNWRITTEN_S and not is_lost(before)
    ]


@dataclass(frozen=True, slots=True)
class Swept:
    """A finished sweep.

    Attributes:
        costs: dollars of each answered call.
        vals: the best prompts' scores on ``val``, from a search with the written configuration.
    """

    ended: Finished
    folder: Path
    gateway: Pushgateway
    costs: Sequence[float]
    vals: Sequence[float]


def _usd(call: AccessRecord) -> float:
    price = PRICES[call.model]
    return (call.prompt_tokens * price["prompt"] + call.completion_tokens * price["completion"]) / 1e6


@pytest.fixture(scope="module")
def finished(gpo: Gpo, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("sweep")
    with SimulatedEndpoint() as endpoint, closing(Pushgateway()) as gateway:
        config = write_config(
            folder,
            endpoint.base_url,
            models={"task": {"price": PRICES["task-model"]}, "optimizer": {"price": PRICES["opt-model"]}},
            metrics={"pushgateway": gateway.url},
            optimizer={"steps": STEPS, "candidates": 2},
            sweep=_sweep(
                TRIALS,
                pruner={"kind": "median", "startup_trials": 1, "min_steps": 1},
                holdout={"tasks": [{**triage_task(), "name": "desks", "prompt": "Which desk is it?"}], "seeds": [0]},
            ),
        )
        ended = gpo("sweep", config, "--run-dir", "results", cwd=folder)
        assert ended.code == 0, ended.stderr
        costs = [_usd(call) for call in endpoint.requests if call.path == CHAT and call.status == 200]
        best = best_without_a_cluster(folder / "results" / "best_config.yaml")
    return Swept(ended, folder, gateway, costs, [val for _, val, _ in best.values()])


def test_a_sweep_writes_results_report_and_a_configuration_that_reproduces_its_score(
    finished: Swept,
) -> None:
    ended, folder = finished.ended, finished.folder
    document = _document(folder / "results")
    assert document["status"] == "completed"
    assert document["trials"]["complete"] + document["trials"]["pruned"] == TRIALS
    best = document["best"]
    assert fmean(finished.vals) == pytest.approx(best["val"], abs=1e-4)
    assert "Plotly.newPlot(" in (folder / "results" / "report.html").read_text(encoding="utf-8")
    assert document["confirmation"]["statement"] in ended.stdout
    # Only the confirmation reads ``test``.
    trial = read_json(folder / "results" / "trials" / "0000" / "summary.json")
    assert all(row["initial"]["test"] is None for row in trial["trajectories"])


def test_metrics_agree_with_the_results(finished: Swept) -> None:
    gateway = finished.gateway
    assert gateway.pushed, finished.ended.stderr
    document = _document(finished.folder / "results")
    expected = {state: count for state, count in document["trials"].items() if state != "wanted"}
    assert gateway.sums("gpo_trials", "state") == expected
    run = f"{document['sweep_id']}-"
    (best,) = gateway.sums("gpo_sweep_best_objective", "run").items()
    assert best[0].startswith(run)
    assert best[1] == document["best"]["val"]
    assert set(gateway.sums("gpo_run_active", "run").values()) == {0.0}
    # The endpoint may have answered the requests that were cancelled when a population was given up.
    unknown = gateway.sums("gpo_model_requests_total", "outcome")["cancelled"] * max(finished.costs)
    cost = sum(gateway.sums("gpo_model_cost_usd_total", "role").values())
    assert 0 < cost <= sum(finished.costs) + 1e-9
    assert sum(finished.costs) <= cost + unknown + 1e-9
    # Spending that a process had not yet reported to the limiter when its trial was pruned is missing.
    assert document["spent"]["usd"] == pytest.approx(cost, rel=0.05)


def test_optuna_dashboard_opens_the_study(finished: Swept) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    app = dashboard.wsgi(_document(finished.folder / "results")["study"]["storage"])
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
