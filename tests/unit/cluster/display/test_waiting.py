from __future__ import annotations

import re
import threading
from io import StringIO
from threading import Event, Timer

import pytest
from rich.console import Console

from cluster.display import waiting
from cluster.display.line_views import PlainView
from cluster.display.live_view import LiveView
from cluster.display.progress import Progress
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SILENCE_S", 0.05)


def lines(output: StringIO) -> list[str]:
    said = re.sub(r"\(for \d+ s\)", "(for N s)", output.getvalue())
    return [line.partition("] ")[2] or line for line in said.splitlines()]


def test_a_view_repeats_the_latest_wait_until_the_work_begins() -> None:
    output = StringIO()
    with PlainView(Console(file=output)) as view:
        for what in ("Starting Ray", "Starting the evaluator"):
            view.status(what)
            wait_until(lambda what=what: f"{what} … (for N s)" in lines(output), f"{what} is repeated")
        view.begin(Progress({}))
    said = lines(output)
    assert said[0] == "Starting Ray …"
    second = said.index("Starting the evaluator …")
    assert set(said[1:second]) == {"Starting Ray … (for N s)"}
    assert set(said[second + 1 :]) == {"Starting the evaluator … (for N s)"}


def test_nothing_is_said_after_the_end() -> None:
    saying, go_on, said = Event(), Event(), list[str]()

    def say(line: str) -> None:
        saying.set()
        assert go_on.wait(60)
        said.append(line)

    reminder, before = waiting.Reminder(say), set(threading.enumerate())
    reminder.begin("Starting Ray")
    assert saying.wait(60)
    Timer(0.1, go_on.set).start()
    reminder.end()
    known = [*said]
    wait_until(lambda: set(threading.enumerate()) <= before, "its thread ends")
    assert known == said != []


def test_the_live_view_shows_how_long_it_waits() -> None:
    output = StringIO()
    with LiveView(Console(file=output, force_terminal=True)) as view:
        view.status("Starting Ray")
        wait_until(lambda: bool(re.search(r"Starting Ray … \(for \d+ s\)", output.getvalue())), "it shows the time")
