"""Output on narrow terminals, with ``TERM=dumb``, and in pipes."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from actors.search import Phase, SearchKey, Update
from cluster.display import waiting
from cluster.display.console import FittingTable, LineConsole
from cluster.display.line_views import PlainView
from cluster.display.live_view import LiveView, view_for
from cluster.display.progress import Progress
from cluster.results.results_table import results_table
from cluster.results.run_record import RunRecord
from cluster.sweep.progress import LiveSweepView, SweepProgress, sweep_view
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.testing.samples import TRAJECTORIES
from tests.waiting import wait_until

KEY = SearchKey("sentiment_of_reviews_2", 0)
STEPPED = Checkpoint(TRAJECTORIES["one step"], {})


def printed(table: object, width: int) -> str:
    on = Console(file=StringIO(), width=width)
    on.print(table)
    return str(on.file.getvalue())


def numbers() -> FittingTable:
    table = FittingTable(title="Figures")
    table.add_column("Task", overflow="fold")
    table.add_column("Calls", justify="right", no_wrap=True)
    table.add_column("Prompt", overflow="fold")
    table.add_row(Text("[red]one"), "1 → 2", Text("Think about it. " * 5))
    table.add_row("two", "", "x" * 50)
    return table


def test_a_table_that_does_not_fit_becomes_a_list_in_which_nothing_is_lost() -> None:
    lines = [line.rstrip() for line in printed(numbers(), 30).splitlines()]
    assert lines == [
        "Figures",
        "[red]one",
        "  Calls 1 → 2",
        "  Prompt Think about it. Think",
        "  about it. Think about it.",
        "  Think about it. Think about",
        "  it.",
        "two",
        "  Prompt",
        "  " + "x" * 28,
        "  " + "x" * 22,
    ]


def test_in_a_list_the_second_line_of_a_number_follows_in_brackets() -> None:
    table = FittingTable()
    table.add_column("Task")
    table.add_column("val", justify="right", no_wrap=True)
    table.add_column("Prompt", overflow="fold")
    table.add_row("one", "0.0 → 91.7\n77–97, n=24", "Think about it. " * 5)
    assert "│ one  │  0.0 → 91.7 │" in printed(table, 60)
    assert "  val 0.0 → 91.7 (77–97, n=24)" in printed(table, 32).splitlines()[1]


def test_the_prompts_of_a_run_and_their_scores_are_readable_at_40_columns() -> None:
    trajectory = STEPPED.trajectory
    checkpoint = STEPPED
    for end in (trajectory.initial, trajectory.best):
        checkpoint = checkpoint.with_test(end.prompt, Evaluation(end.score, Usage()))
    record = RunRecord("run-1", 0.0, keys=(KEY,), num_steps={KEY: 1})
    record.receive(Update(KEY, Phase.DONE, checkpoint=checkpoint))
    text = printed(results_table(record), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert "val 50.0 → 90.0" in text
    assert "test 50.0 → 90.0" in text
    assert f"Best prompt {trajectory.best.prompt.text}" in " ".join(text.split())
    assert KEY.task in text
    assert "│" not in text
    assert "│" in printed(results_table(record), 100)


@pytest.mark.parametrize("width", [40, 60])
def test_progress_on_a_narrow_terminal_has_no_stubs(width: int) -> None:
    on = Console(file=StringIO(), force_terminal=True, width=width, height=20, color_system=None)
    progress = Progress(dict.fromkeys((KEY, SearchKey("b", 1)), 12))
    progress.rows[KEY].receive(Update(KEY, Phase.EVALUATING, 12, 100, checkpoint=STEPPED))
    view = LiveView(on)
    view.begin(progress)
    on.print(view._render())
    text = on.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for words in ("1/12", "evaluating", "12/100", "90.0", "8 %", "calls"):
        assert words in text


@pytest.fixture(params=["pipe", "TERM=dumb"])
def lines(request: pytest.FixtureRequest) -> LineConsole:
    """A console that can only print lines."""
    is_dumb = request.param == "TERM=dumb"
    return LineConsole(file=StringIO(), force_terminal=is_dumb, width=40, _environ={"TERM": "dumb"})


def test_progress_is_lines_where_the_cursor_cannot_move(lines: LineConsole) -> None:
    assert isinstance(view_for(lines), PlainView)
    assert not isinstance(sweep_view(lines, SweepProgress(1, ())), LiveSweepView)


def test_a_terminal_gets_a_live_view() -> None:
    on = LineConsole(file=StringIO(), force_terminal=True, _environ={"TERM": "xterm"})
    assert isinstance(view_for(on), LiveView)
    assert isinstance(sweep_view(on, SweepProgress(1, ())), LiveSweepView)
    with on.status("Waiting …"):
        pass
    assert "⠋" in on.file.getvalue()  # type: ignore[attr-defined]


def test_the_start_of_a_sweep_is_a_line_now_and_then(lines: LineConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SILENCE_S", 0.01)
    with sweep_view(lines, SweepProgress(1, ())) as view:
        view.status("Starting Ray")
        wait_until(lambda: lines.file.getvalue().count("\n") >= 2, "a second line")  # type: ignore[attr-defined]
    first, second, *_ = lines.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.endswith("] Starting Ray …")
    assert re.fullmatch(r"\[\d:\d\d\] Starting Ray … \(for \d+ s\)", second)
