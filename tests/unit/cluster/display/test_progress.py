from __future__ import annotations

import logging
import time
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from actors.search import Phase, SearchKey, Update
from cluster.display.line_views import PlainView
from cluster.display.live_view import LiveView, view_for
from cluster.display.progress import Progress, Row, duration, percent
from cluster.sweep.progress import LiveSweepView, SweepProgress, sweep_view
from gpo.checkpoint import Checkpoint
from gpo.limits.messages import Spent, Wait
from gpo.strategies.stopping import StoppingRule
from gpo.testing.samples import TRAJECTORIES, candidate, trajectory

FIRST, SECOND = SearchKey("triage", 0), SearchKey("[bold]triage", 1)
STARTED = Checkpoint(TRAJECTORIES["only the initial prompt"], test={})
ONE_STEP = Checkpoint(TRAJECTORIES["one step"], test={})
UPDATES = [
    Update(FIRST, Phase.INITIAL, evaluated=0, to_evaluate=1),
    Update(FIRST, Phase.PROPOSING, checkpoint=STARTED),
    Update(SECOND, Phase.PROPOSING, checkpoint=STARTED),
    Update(FIRST, Phase.EVALUATING, checkpoint=STARTED),
    Update(FIRST, Phase.EVALUATING, evaluated=1, to_evaluate=2),
    Update(FIRST, Phase.TESTING, checkpoint=ONE_STEP),
    Update(SECOND, Phase.DONE, error="TrajectoryLost: [red]gone[/red]"),
    Update(FIRST, Phase.DONE, checkpoint=ONE_STEP),
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time, in seconds since the start."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def set_to(seconds: float) -> None:
        nonlocal now
        now = 1000.0 + seconds

    return set_to


def console(*, terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=120, color_system=None)


def shown(on: Console) -> str:
    assert isinstance(on.file, StringIO)
    return on.file.getvalue()


def test_each_event_is_one_plain_line() -> None:
    on = console(terminal=False)
    progress = Progress({FIRST: 1, SECOND: 1})
    with PlainView(on) as view:
        view.status("Starting Ray")
        view.begin(progress)
        for update in UPDATES:
            progress.rows[update.key].receive(update)
            view.show(update)
    lines = [line.partition("] ")[2].partition(", about")[0] for line in shown(on).splitlines()]
    assert lines == [
        "Starting Ray …",
        "triage/0: initial prompt scored, best val 50.0 (7–93), initial 50.0, 1 prompts tried, 0 calls",
        "[bold]triage/1: initial prompt scored, best val 50.0 (7–93), initial 50.0, 1 prompts tried, 0 calls",
        "triage/0: step 1/1, best val 90.0 (22–100), initial 50.0, 3 prompts tried, 3 calls",
        "[bold]triage/1: failed: TrajectoryLost: [red]gone[/red]",
        "triage/0: done, best val 90.0 (22–100), initial 50.0, 3 prompts tried, 3 calls",
    ]


def test_the_live_table_can_be_drawn_at_any_time() -> None:
    on = console(terminal=True)
    progress = Progress({FIRST: 1, SECOND: 1})
    with LiveView(on) as view:
        view.status("Starting Ray")
        on.print(view._render())
        view.begin(progress)
        for update in UPDATES:
            progress.rows[update.key].receive(update)
            view.show(update)
            on.print(view._render())
    text = shown(on)
    for words in ("Starting Ray …", "Best val", "[bold]triage", "evaluating 1/2", "90.0", "failed", "3 calls"):
        assert words in text
    assert "[bold]triage/1 failed: TrajectoryLost: [red]gone[/red]" in text


def test_a_long_table_keeps_failed_and_running_trajectories() -> None:
    on = Console(file=StringIO(), force_terminal=True, width=120, height=10, color_system=None)
    keys = [SearchKey(f"task-{number}", 0) for number in range(9)]
    progress = Progress(dict.fromkeys(keys, 1))
    for key, update in (
        (keys[0], Update(keys[0], Phase.DONE)),
        (keys[1], Update(keys[1], Phase.DONE, error="lost")),
        (keys[8], Update(keys[8], Phase.PROPOSING, checkpoint=STARTED)),
    ):
        progress.rows[key].receive(update)
    view = LiveView(on)
    view.begin(progress)
    on.print(view._render())
    text = on.file.getvalue()
    assert [number for number in range(9) if f"task-{number} " in text] == [1, 2, 3, 4, 8]
    (totals,) = [line.split() for line in text.splitlines() if line.startswith("all")]
    assert totals == ["all", "9", "0/9", "2", "done,", "5", "shown", "50.0", "50.0", "1", "0"]
    assert "1 failed" in text


def test_calls_and_dollars_are_those_of_the_last_half_minute_and_of_the_run(clock: Callable[[float], None]) -> None:
    progress = Progress({FIRST: 1})
    assert progress.calls_per_s is None
    for seconds, calls in ((0, 0), (10, 20), (20, 120), (50, 420)):
        clock(seconds)
        progress.receive_spent(Spent(calls, 0, 1.5))
    # The 300 calls of the last 30 s; those before do not count any more.
    assert progress.calls_per_s == pytest.approx(10)
    on = console(terminal=True)
    view = LiveView(on)
    view.begin(progress)
    on.print(view._render())
    assert "420 calls, 10.0/s · $1.50" in shown(on)


def test_a_quiet_console_gets_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    on = Console(file=StringIO(), quiet=True)
    progress = Progress({FIRST: 1, SECOND: 1})
    with caplog.at_level(logging.INFO, "cluster"), view_for(on) as view:
        view.begin(progress)
        for update in UPDATES:
            progress.rows[update.key].receive(update)
            view.show(update)
    logged = [(record.getMessage(), record.__dict__["trajectory"]) for record in caplog.records]
    assert logged == [
        ("initial prompt scored", "triage/0"),
        ("initial prompt scored", "[bold]triage/1"),
        ("step taken", "triage/0"),
        ("failed: TrajectoryLost: [red]gone[/red]", "[bold]triage/1"),
        ("done", "triage/0"),
    ]
    assert caplog.records[2].__dict__["best_prompt"] == ONE_STEP.trajectory.best.prompt.id
    assert caplog.records[2].__dict__["step"] == 0


WAIT = Wait("task-model at http://here/v1: HTTP 503: [starting] up", 12.3)
SAID = f"waiting for 12 s: {WAIT.reason}"


def test_a_terminal_shows_what_calls_wait_for_and_since_when() -> None:
    for width, height in ((120, 12), (40, 40)):
        on = Console(file=StringIO(), force_terminal=True, width=width, height=height, color_system=None)
        progress = Progress({SearchKey(f"task-{number}", 0): 1 for number in range(9)}, wait=WAIT)
        view = LiveView(on)
        view.begin(progress)
        on.print(view._render())
        assert SAID in " ".join(shown(on).split())
        assert len(shown(on).splitlines()) <= height
        progress.wait = Wait("x" * 1000, 12.3)
        assert len(view._wait(progress)) == 3
        progress.wait = None
        assert view._wait(progress) == []


def test_lines_say_what_calls_wait_for_and_since_when(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    on = console(terminal=False)
    progress = Progress({FIRST: 1}, wait=WAIT)
    for view in (PlainView(on), view_for(Console(quiet=True))):
        clock(0)
        view.begin(progress)
        for second in range(1, 12):
            clock(second)
            view.tick()
    assert shown(on).splitlines() == [
        f"[0:{second}] working: triage/0 initial prompt; {SAID}" for second in ("05", "10")
    ]
    assert [record.getMessage() for record in caplog.records] == [SAID] * 3


def test_a_sweep_says_what_calls_wait_for_and_since_when(clock: Callable[[float], None]) -> None:
    clock(0)
    lines, terminal = console(terminal=False), console(terminal=True)
    view = sweep_view(lines, SweepProgress(3, ()))
    for second in range(1, 12):
        clock(second)
        view.tick(WAIT)
    line = f"3 trials: 0 done, 0 pruned, 0 running; {SAID}"
    assert shown(lines).splitlines() == [f"[0:05] {line}", f"[0:10] {line}"]
    live = sweep_view(terminal, SweepProgress(3, ()))
    assert isinstance(live, LiveSweepView)
    live.tick(WAIT)
    terminal.print(live._render())
    assert line in shown(terminal)


def test_a_trajectory_that_stopped_early_says_why_and_is_nearly_done() -> None:
    on = console(terminal=False)
    progress = Progress({FIRST: 10}, stopping=StoppingRule(target=0.01))
    row = progress.rows[FIRST]
    with PlainView(on) as view:
        view.begin(progress)
        for update in UPDATES:
            if update.key == FIRST:
                row.receive(update)
                view.show(update)
            if update.phase is Phase.TESTING:
                assert row.share == pytest.approx(11 / 12)
    assert "done after step 1/10 (reached the target 0.01), best val 90.0" in shown(on)


def test_the_time_left_follows_the_pace_so_far(clock: Callable[[float], None]) -> None:
    clock(0)
    progress = Progress({FIRST: 2})
    row = progress.rows[FIRST]
    assert progress.left_s() is None
    # The initial prompt is one of four shares of the work: the prompts before and after the steps, and the two steps.
    clock(10)
    row.receive(Update(FIRST, Phase.PROPOSING, checkpoint=STARTED))
    assert progress.left_s() == pytest.approx(30)
    clock(20)
    row.receive(Update(FIRST, Phase.PROPOSING, checkpoint=ONE_STEP))
    assert progress.left_s() == pytest.approx(20)
    row.receive(Update(FIRST, Phase.DONE, checkpoint=ONE_STEP))
    assert progress.left_s() == 0.0


def test_the_time_left_of_a_resumed_run_ignores_earlier_attempts(clock: Callable[[float], None]) -> None:
    clock(0)
    row = Row(FIRST, num_steps=4, started=time.monotonic())
    row.receive(Update(FIRST, Phase.PROPOSING, checkpoint=ONE_STEP))
    assert row.left_s(time.monotonic()) is None
    clock(10)
    two_steps = trajectory(candidate("Think."), [candidate("Reason.")], [candidate("Decide.")])
    row.receive(Update(FIRST, Phase.PROPOSING, checkpoint=Checkpoint(two_steps, test={})))
    # One step took 10 s; two more and the test prompts are left.
    assert row.left_s(time.monotonic()) == pytest.approx(30)


def test_the_share_of_the_work_never_falls_and_ends_at_one() -> None:
    row = Row(FIRST, num_steps=1, started=0.0)
    shares = []
    for update in UPDATES:
        if update.key == FIRST:
            row.receive(update)
            shares.append(row.share)
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1 h 00 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (0.0, "0.0"), (0.1234, "12.3"), (1, "100.0")]
)
def test_scores_are_percentages(value: float | None, text: str) -> None:
    assert percent(value) == text
