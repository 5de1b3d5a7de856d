from __future__ import annotations

from pathlib import Path

from actors.folder import Folder
from actors.search import SearchKey
from cluster.runs.run_folder import RunFolder
from cluster.sweep.trial import Population, cost
from gpo.checkpoint import Checkpoint
from gpo.models.protocol import Usage
from gpo.testing.samples import candidate, trajectory
from tests.unit.cluster.runs.test_run_folder import DATA, config


def test_cached_calls_cost_as_much_as_original_ones() -> None:
    paid = Usage(requests=40, prompt_tokens=300, completion_tokens=100, cost_usd=0.5)
    partly = Usage(
        requests=10,
        cached=30,
        prompt_tokens=75,
        completion_tokens=25,
        cost_usd=0.125,
        cached_tokens=300,
        cached_usd=0.375,
    )
    wholly = Usage(cached=40, cached_tokens=400, cached_usd=0.5)
    assert cost([paid]) == cost([partly]) == cost([wholly]) == (400.0, 0.5)


def test_costs_are_summed_over_roles() -> None:
    task = Usage(requests=1, cached=1, prompt_tokens=10, cost_usd=0.25, cached_tokens=10, cached_usd=0.25)
    optimizer = Usage(requests=2, prompt_tokens=500, completion_tokens=500, cost_usd=1.0)
    assert cost([task, optimizer, Usage()]) == (1020.0, 1.5)


def test_a_trajectory_that_stopped_early_does_not_hold_up_its_population(tmp_path: Path) -> None:
    settings = config(stop={"patience": 1}, optimizer={"steps": 4})
    population = Population(settings, DATA, RunFolder(Folder.at(str(tmp_path))), name="study-0", is_tested=False)
    first = candidate("first", 0.2, 0.2)
    stopped = trajectory(first, [candidate("worse", 0.1, 0.1)])
    searches = trajectory(first, [candidate("better", 0.4, 0.4)], [candidate("best", 0.6, 0.6)])
    for seed, search in enumerate((stopped, searches)):
        population.record.checkpoints[SearchKey("desk", seed)] = Checkpoint(search, {})
    assert population.steps == 2
    assert (population.values(1), population.values(2)) == ([0.2, 0.4], [0.2, 0.6])
    assert not population.record.is_complete
    population.record.checkpoints[SearchKey("desk", 1)] = Checkpoint(stopped, {})
    assert population.steps == population.num_steps == 4
    assert population.record.is_complete
