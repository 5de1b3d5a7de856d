from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from actors.metrics.book import VALUE, Cell
from actors.metrics.catalogue import ACTOR_DEATHS, ACTORS, STEPS
from actors.metrics.elsewhere import Elsewhere, SilentNodeError
from actors.metrics.exporter import Exporter
from actors.metrics.tally import Tally, total

_STEPS = Cell(STEPS.name, VALUE, ("r", "t", "0"))
_ALIVE = Cell(ACTORS.name, VALUE, ("r", "evaluator"))
_DEATHS = Cell(ACTOR_DEATHS.name, VALUE, ("r", "evaluator"))


def _node(steps: float) -> Tally:
    """Of a node with a process that is alive."""
    return {_STEPS: steps, _ALIVE: 1.0, _DEATHS: 0.0}


def test_what_a_node_told_last_stands_in_for_it_and_its_processes_die_with_it() -> None:
    elsewhere = Elsewhere()
    elsewhere.hear("a", _node(90))
    elsewhere.hear("b", _node(90))
    assert total(elsewhere.tallies({"a", "b"})) == {_STEPS: 180, _ALIVE: 2, _DEATHS: 0}
    for _ in range(2):  # a death is one, however often it is told
        assert total(elsewhere.tallies({"a"})) == {_STEPS: 180, _ALIVE: 1, _DEATHS: 1}
    elsewhere.hear("a", _node(100))
    assert total(elsewhere.tallies({"a"})) == {_STEPS: 190, _ALIVE: 1, _DEATHS: 1}


def test_the_next_exporter_knows_what_a_lost_node_had_counted() -> None:
    first, second, third = Elsewhere(), Elsewhere(), Elsewhere()
    first.hear("a", _node(90))
    second.recall(first.told())
    third.recall(second.told())
    assert total(third.tallies(set())) == {_STEPS: 90, _ALIVE: 0, _DEATHS: 1}


def test_no_scrape_tells_less_of_a_living_node_than_one_before_it() -> None:
    elsewhere = Elsewhere()
    elsewhere.recall({"a": _node(90), "idle": {}})
    with pytest.raises(SilentNodeError, match="1 node"):
        elsewhere.tallies({"a", "idle", "new"})
    elsewhere.hear("a", _node(95))
    assert total(elsewhere.tallies({"a", "idle", "new"}))[_STEPS] == 95
    # What it has heard itself is newer, and nothing to wait for.
    elsewhere.recall({"a": _node(90)})
    assert total(elsewhere.tallies({"a", "idle", "new"}))[_STEPS] == 95


def test_a_scrape_fails_rather_than_tell_too_little_and_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, elsewhere = Exporter(), Elsewhere()
    elsewhere.recall({"a": _node(90)})
    # Ray alone knows nodes.
    monkeypatch.setattr(exporter, "_read", lambda name: total(elsewhere.tallies({"a"})))
    exporter.watch("run", {})
    url = f"http://127.0.0.1:{exporter.serve('127.0.0.1', 0)}/metrics"
    with pytest.raises(HTTPError, match="503"):
        urlopen(url)
    assert exporter.scrapes() == 0
    elsewhere.hear("a", _node(95))
    with urlopen(url) as reply:
        assert b'gpo_steps_total{run="r",seed="0",task="t"} 95.0' in reply.read()
