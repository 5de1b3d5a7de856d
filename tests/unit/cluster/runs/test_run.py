from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from rich.console import Console

from actors.folder import Folder
from actors.search import Phase, SearchKey, Update
from cluster.display.line_views import PlainView
from cluster.results.results_table import stopping_lines
from cluster.results.run_record import RunRecord
from cluster.runs import run as module
from cluster.runs.run import Run, ending_recorded
from cluster.runs.run_folder import RunFolder
from cluster.runs.stop_file import STOP_FILE
from cluster.session.interrupts import raise_if_stopped
from cluster.session.models import Access
from gpo.checkpoint import Checkpoint
from gpo.errors import BudgetExhausted, ModelRefused, RefusalReason, StorageError
from gpo.evaluation.evaluator import Evaluation
from gpo.limits.limiter import LocalLimiter
from gpo.models.protocol import Usage
from gpo.testing.samples import TRAJECTORIES
from tests.unit.cluster.runs.test_run_folder import DATA, config
from tests.waiting import wait_for_a_stop

KEY = SearchKey("desk", 0)
STARTED, STEPPED = (Checkpoint(TRAJECTORIES[name], {}) for name in ("only the initial prompt", "one step"))


@pytest.mark.parametrize(
    ("error", "status", "raised"),
    [
        (None, "completed", None),
        (BudgetExhausted("budget.calls: 9 of 9 are spent"), "budget_exhausted", None),
        (KeyboardInterrupt(), "interrupted", KeyboardInterrupt),
        (StorageError("the disk is full"), "failed", StorageError),
        (ModelRefused("no", RefusalReason.REQUEST), "failed", ModelRefused),
    ],
)
def test_the_record_says_how_a_run_ended(
    error: BaseException | None, status: str, raised: type[BaseException] | None
) -> None:
    record = RunRecord("run", 0.0)

    def work() -> None:
        with ending_recorded(record, config()):
            if error is not None:
                raise error

    if raised is None:
        work()
    else:
        with pytest.raises(raised):
            work()
    assert record.status == status
    assert record.ended_by == (str(error) if status == "budget_exhausted" else "")


def test_a_run_with_a_failed_trajectory_has_failed() -> None:
    record = RunRecord("run", 0.0, errors={KEY: "ModelUnavailable: away"})
    with ending_recorded(record, config()):
        pass
    assert record.status == "failed"


@dataclass
class FakeSession:
    """A session whose searches are fixed updates; then it waits for ``pause_s``."""

    pause_s: float = 0.0
    is_closed: bool = False
    evaluators: Mapping[str, Any] = field(default_factory=dict)
    access: Access = field(default_factory=lambda: Access({}, LocalLimiter(), "run"))

    @property
    def services(self) -> Any:
        return self

    async def run(self, *_: Any) -> AsyncGenerator[Update, None]:
        try:
            for checkpoint in (STARTED, STEPPED, STEPPED):
                yield Update(KEY, Phase.PROPOSING, checkpoint=checkpoint)
            await asyncio.sleep(self.pause_s)
        finally:
            self.is_closed = True

    def counted_view(self, view: PlainView, *_: Any) -> PlainView:
        return view


def complete(checkpoint: Checkpoint) -> Checkpoint:
    for end in (checkpoint.trajectory.initial, checkpoint.trajectory.best):
        checkpoint = checkpoint.with_test(end.prompt, Evaluation(end.score, Usage()))
    return checkpoint


@pytest.fixture(autouse=True)
def _without_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "build_searches", lambda *_: [])


def opened(folder: Path, *, began: float | None = None, **sections: Any) -> Run:
    run_folder = RunFolder(Folder.at(str(folder)))
    settings = config(**{"run": {"seeds": [0]}, **sections})
    record = run_folder.open(settings, DATA, run_id="run-1", resume=True, began=began)
    return Run(settings, DATA, record, run_folder)


def steps_in(folder: Path) -> int:
    return len((folder / "steps.jsonl").read_text().splitlines())


async def test_each_update_is_recorded_before_it_is_yielded(tmp_path: Path) -> None:
    run = opened(tmp_path)
    session = FakeSession()
    updates = run.updates(cast("Any", session))
    known = [(run.record.steps_taken(KEY), steps_in(tmp_path)) async for _ in updates]
    assert known == [(0, 0), (1, 1), (1, 1)]
    assert session.is_closed


@pytest.mark.parametrize(
    ("budget", "pause_s", "status"), [({}, 0.0, "completed"), ({"wall_s": 2.0}, 60.0, "budget_exhausted")]
)
def test_a_run_saves_its_results_however_it_ends(
    budget: dict[str, Any], pause_s: float, status: str, tmp_path: Path
) -> None:
    run, out, session = opened(tmp_path, budget=budget), StringIO(), FakeSession(pause_s)
    run.execute(cast("Any", session), PlainView(Console(file=out, width=200)))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["trajectories"][0]["steps"]) == (status, 1)
    assert (summary["ended_by"] or "").startswith("budget.wall_s" if budget else "")
    assert summary["finished_at"] is not None
    assert steps_in(tmp_path) == 1
    assert (tmp_path / "report.html").exists()
    assert "desk/0: step 1" in out.getvalue()
    assert session.is_closed


class WaitingSession(FakeSession):
    """A session that no node can take."""

    @property
    def services(self) -> Any:
        wait_for_a_stop()


def test_a_session_that_cannot_start_before_the_deadline_ends_the_run_as_the_deadline_does(tmp_path: Path) -> None:
    run, session = opened(tmp_path, budget={"wall_s": 0.2}), WaitingSession()
    run.execute(cast("Any", session), PlainView(Console(file=StringIO())))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["ended_by"]) == ("budget_exhausted", "budget.wall_s: 0.2 s are over")
    assert summary["wall_s"] >= 0.2, "the wait counts when the run is resumed"
    assert summary["spent"]["calls"] == 0
    assert (tmp_path / "report.html").exists()
    run = opened(tmp_path, budget={"wall_s": 600.0})
    run.execute(cast("Any", FakeSession()), PlainView(Console(file=StringIO())))
    assert run.record.status == "completed"


def test_a_driver_that_is_killed_while_it_waits_for_the_cluster_loses_little_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.session.budget.SAVED_EVERY_S", -1.0)

    def saved() -> float:
        return float(json.loads((tmp_path / "summary.json").read_text())["wall_s"])

    class Waiting(FakeSession):
        @property
        def services(self) -> Any:
            assert saved() >= 50.0, "the imports and the data count"
            (tmp_path / "summary.json").unlink()
            raise_if_stopped()
            assert saved() >= 50.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, began=time.monotonic() - 50.0).execute(cast("Any", Waiting()), Mock())


@pytest.mark.parametrize("where", ["run", "."])
def test_a_stop_file_ends_a_run_as_ctrl_c_does(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the run's folder, or in that of the comparison to which the run belongs."""
    session = FakeSession(pause_s=60.0)
    monkeypatch.setattr("cluster.session.interrupts._POLLED_EVERY_S", 0.05)
    run = opened(tmp_path / "run")

    class StoppingView(PlainView):
        def show(self, update: Update) -> None:
            (tmp_path / where / STOP_FILE).touch()

    with pytest.raises(KeyboardInterrupt):
        run.execute(cast("Any", session), StoppingView(Console(file=StringIO())), outer=[Folder.at(str(tmp_path))])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["trajectories"][0]["steps"]) == ("interrupted", 1)
    assert (tmp_path / "run" / "report.html").exists()
    assert session.is_closed


def test_a_trajectory_that_stops_early_says_why_everywhere(tmp_path: Path) -> None:
    run, out = opened(tmp_path, stop={"target": 0.01}), StringIO()
    run.execute(cast("Any", FakeSession()), PlainView(Console(file=out, width=200)))
    (row,) = json.loads((tmp_path / "summary.json").read_text())["trajectories"]
    assert row["stopped_by"] == "reached the target 0.01"
    steps = [json.loads(line)["stopped_by"] for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert steps == ["reached the target 0.01"]
    assert "stopped early: reached the target 0.01" in (tmp_path / "report.html").read_text()
    assert stopping_lines(run.record) == ["Stopped early (reached the target 0.01): desk/0."]
    assert run.record.planned_steps(KEY) == 1
    # A rule that has changed applies when the run is resumed.
    assert opened(tmp_path, stop={"target": 0.9}).record.stopping.target == 0.9


def test_a_complete_run_starts_nothing(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.record.checkpoints[KEY], run.record.num_steps = complete(STEPPED), {KEY: 1}
    run.execute(cast("Any", None), PlainView(Console(file=StringIO())))  # there is no session to start
    assert run.record.status == "completed"


def test_a_complete_run_that_is_shown_again_took_no_longer(tmp_path: Path) -> None:
    def shown() -> dict[str, Any]:
        run = opened(tmp_path, began=time.monotonic() - 7.0, optimizer={"steps": 1})
        run.execute(cast("Any", FakeSession()), PlainView(Console(file=StringIO())))
        summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
        assert summary["status"] == "completed"
        return summary

    first = shown()
    assert first["wall_s"] >= 7.0
    RunFolder(Folder.at(str(tmp_path))).checkpoints.save(KEY, complete(STEPPED))
    again = shown()
    assert (again["wall_s"], again["finished_at"]) == (first["wall_s"], first["finished_at"])
    # The process that completed it was killed before it said so.
    (tmp_path / "summary.json").write_text(json.dumps({**first, "finished_at": None}))
    again = shown()
    assert (again["wall_s"], again["finished_at"] is None) == (first["wall_s"], False)
