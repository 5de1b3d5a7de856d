from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from actors.folder import Folder
from actors.search import Phase, SearchKey, Update
from cluster.config import RunConfig
from cluster.results.run_record import RunRecord
from cluster.runs import run as module
from cluster.runs.run import Run, ending_recorded
from cluster.runs.run_folder import RunFolder
from gpo.checkpoint import Checkpoint
from gpo.errors import BudgetExhausted, ModelRefused, RefusalReason, StorageError
from gpo.testing.samples import TRAJECTORIES
from tests.unit.cluster.runs.test_run_folder import config

KEY = SearchKey("desk", 0)


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


class Supervisor:
    """Reports fixed updates in place of actors."""

    reported: Sequence[Update] = ()
    closed = False

    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def run(self) -> AsyncGenerator[Update, None]:
        try:
            for update in self.reported:
                yield update
        finally:
            type(self).closed = True


async def test_each_update_is_recorded_before_it_is_yielded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, stepped = (Checkpoint(TRAJECTORIES[name], {}) for name in ("only the initial prompt", "one step"))
    monkeypatch.setattr(
        Supervisor, "reported", [Update(KEY, Phase.PROPOSING, checkpoint=one) for one in (started, stepped, stepped)]
    )
    monkeypatch.setattr(module, "Supervisor", Supervisor)
    monkeypatch.setattr(module, "build_searches", lambda *_: [])
    monkeypatch.setattr(module, "placement", lambda *_: None)
    record = RunRecord("run", 0.0, keys=(KEY,), num_steps={KEY: 2})
    run = Run(cast("RunConfig", None), [], record, RunFolder(Folder.at(str(tmp_path))))
    known = []
    updates = run.updates(cast("Any", _Services()), [])
    async for _ in updates:
        lines = (tmp_path / "steps.jsonl").read_text().splitlines() if (tmp_path / "steps.jsonl").exists() else []
        known.append((record.steps_taken(KEY), len(lines)))
    assert known == [(0, 0), (1, 1), (1, 1)]
    assert Supervisor.closed


class _Services:
    evaluators = access = metrics = None
