from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from actors.folder import Folder
from cluster.cli.options import with_deadline
from cluster.session.interrupts import raise_if_stopped
from cluster.sweep.folder import SweepFolder
from cluster.sweep.session import SweepSession
from gpo.limits.messages import Spent
from tests.unit.cluster.sweep.test_study import Process
from tests.waiting import wait_for_a_stop


class WaitingSession:
    """A session that no node can take."""

    @property
    def services(self) -> Any:
        wait_for_a_stop()


def test_a_session_that_cannot_start_before_the_deadline_ends_the_sweep_as_the_deadline_does(tmp_path: Path) -> None:
    process = Process(tmp_path, trials=2)
    object.__setattr__(process.config, "base", with_deadline(process.config.base, 100.0))
    folder = SweepFolder(Folder.at(str(tmp_path)), "tuned-sweep-1", 0.0, began=time.monotonic() - 99.8)
    sweep = SweepSession(process.config, process.study, folder, Mock(), Mock())
    sweep.execute(cast("Any", WaitingSession()))
    document = sweep.save(with_report=False)
    assert (document["status"], document["ended_by"]) == ("budget_exhausted", "budget.wall_s: 100 s are over")
    assert (document["trials"]["waiting"], document["spent"]["calls"]) == (2, 0)
    assert document["wall_s"] >= 100.0


def test_a_process_that_is_killed_while_it_waits_for_the_cluster_loses_little_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.session.budget.SAVED_EVERY_S", -1.0)
    Process(tmp_path, trials=2).study.heartbeats.beat(Spent(calls=9), ended=True)
    process = Process(tmp_path, trials=2)
    folder = SweepFolder(Folder.at(str(tmp_path)), "tuned-sweep-1", 0.0, began=time.monotonic() - 50.0)

    class Waiting:
        @property
        def services(self) -> Any:
            raise_if_stopped()
            document = json.loads((tmp_path / "sweep.json").read_text())
            assert (document["status"], document["wall_s"] >= 50.0) == ("running", True)
            assert document["spent"]["calls"] == 9, "by an earlier attempt"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SweepSession(process.config, process.study, folder, Mock(), Mock()).execute(cast("Any", Waiting()))


def test_a_complete_sweep_that_is_shown_again_took_no_longer(tmp_path: Path) -> None:
    process = Process(tmp_path, trials=1)
    process.complete(process.claim(), 0.5)
    stored = {"sweep_id": "tuned-sweep-1", "started_at": "2026-01-01T00:00:00+00:00", "wall_s": 12.5}
    (tmp_path / "sweep.json").write_text(json.dumps(stored))
    folder = SweepFolder(Folder.at(str(tmp_path)), "tuned-sweep-1", 0.0, began=time.monotonic() - 19.5)
    sweep = SweepSession(process.config, process.study, folder, Mock(), Mock())
    sweep.execute(cast("Any", None))
    document = sweep.save(with_report=False)
    assert (document["status"], document["wall_s"]) == ("completed", 12.5)
