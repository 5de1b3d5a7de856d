from __future__ import annotations

from contextlib import closing
from urllib.request import urlopen

from actors.metrics.catalogue import STEPS
from actors.metrics.counts import Counts, Numbers
from actors.metrics.exporter import Exporter

HOST = "127.0.0.1"


def _numbers(run: str, steps: float) -> Numbers:
    counts = Counts()
    counts.add(STEPS, run, "t", "0", amount=steps)
    return counts.snapshot()


def _scrape(port: int) -> list[str]:
    with urlopen(f"http://{HOST}:{port}/metrics") as reply:
        return [line for line in reply.read().decode().splitlines() if line.startswith("gpo_steps_total{")]


def test_a_scrape_finds_the_newest_numbers_of_all_sessions() -> None:
    with closing(Exporter()) as exporter:
        port, begun = exporter.update("1", _numbers("a", 1), HOST, 0)
        assert begun == 0
        exporter.update("1", _numbers("a", 2), HOST, 0)
        exporter.update("2", _numbers("b", 3), HOST, 0)
        assert _scrape(port) == [
            'gpo_steps_total{run="a",seed="0",task="t"} 2.0',
            'gpo_steps_total{run="b",seed="0",task="t"} 3.0',
        ]
        # Two processes that work on one sweep have one name.
        assert exporter.update("3", _numbers("a", 5), HOST, 0) == (port, 1)
        assert exporter.answered() == 1
        assert _scrape(port)[0].endswith(" 7.0")
        exporter.forget("3")
        assert _scrape(port)[0].endswith(" 2.0")


def test_numbers_without_an_update_vanish_after_a_minute() -> None:
    now = [0.0]
    with closing(Exporter(lambda: now[0])) as exporter:
        port, _ = exporter.update("dead", _numbers("a", 1), HOST, 0)
        now[0] = 30.0
        exporter.update("alive", _numbers("b", 1), HOST, 0)
        now[0] = 60.0
        assert len(_scrape(port)) == 2
        now[0] = 61.0
        assert _scrape(port) == ['gpo_steps_total{run="b",seed="0",task="t"} 1.0']
        exporter.update("dead", _numbers("a", 2), HOST, 0)
        assert len(_scrape(port)) == 2
