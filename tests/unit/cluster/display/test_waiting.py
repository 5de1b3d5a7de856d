from __future__ import annotations

import re
import time
from io import StringIO

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
        time.sleep(0.2)
        assert lines(output) == said
    assert said[0] == "Starting Ray …"
    second = said.index("Starting the evaluator …")
    assert set(said[1:second]) == {"Starting Ray … (for N s)"}
    assert set(said[second + 1 :]) == {"Starting the evaluator … (for N s)"}


def test_the_live_view_shows_how_long_it_waits() -> None:
    output = StringIO()
    with LiveView(Console(file=output, force_terminal=True)) as view:
        view.status("Starting Ray")
        wait_until(lambda: bool(re.search(r"Starting Ray … \(for \d+ s\)", output.getvalue())), "it shows the time")
