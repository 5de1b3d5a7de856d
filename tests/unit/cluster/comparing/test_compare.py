from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from actors.folder import Folder
from cluster.comparing.compare import ComparisonFolder, run_comparison
from cluster.comparing.comparison import Comparison
from cluster.display.line_views import PlainView
from tests.unit.cluster.runs.test_run_folder import DATA, config
from tests.waiting import wait_for_a_stop


class WaitingSession:
    """A session that no node can take."""

    def __init__(self) -> None:
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        wait_for_a_stop()

    @property
    def services(self) -> Any:
        raise AssertionError("no method has time left")


def opened(folder: Path, wall_s: float) -> tuple[Comparison, ComparisonFolder]:
    settings, where = config(budget={"wall_s": wall_s}), ComparisonFolder(Folder.at(str(folder)))
    return where.open(dict.fromkeys(("gpo", "ape"), settings), DATA, run_id="compared", resume=True), where


def run(comparison: Comparison, folder: ComparisonFolder) -> WaitingSession:
    session = WaitingSession()
    run_comparison(comparison, folder, cast("Any", session), PlainView(Console(file=StringIO())))
    assert {method.record.status for method in comparison.methods} == {"budget_exhausted"}
    return session


def test_a_session_that_cannot_start_is_awaited_for_the_longest_time_that_a_method_has_left(tmp_path: Path) -> None:
    comparison, folder = opened(tmp_path, 100.0)
    comparison.methods[0].record.wall_s = 100.0
    comparison.methods[1].record.wall_s = 99.8
    assert run(comparison, folder).starts == 1
    assert all(method.record.wall_s >= 100.0 for method in comparison.methods), "the wait counts"


def test_a_comparison_without_time_left_starts_nothing(tmp_path: Path) -> None:
    comparison, folder = opened(tmp_path, 100.0)
    for method in comparison.methods:
        method.record.wall_s = 100.0
    assert run(comparison, folder).starts == 0
