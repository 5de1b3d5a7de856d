from __future__ import annotations

from benchmarks.exchange import SimulatedEvaluator, knows, returns, takes
from benchmarks.racing import optimizer, task
from benchmarks.simulated.domains import DOMAINS
from gpo.data.task import Split
from gpo.prompt import Prompt
from gpo.strategies.acceptance import BestOfStep
from gpo.testing.samples import candidate, trajectory
from gpo.trajectory import Trajectory


def siblings() -> list[Trajectory]:
    """Four of one step each; the second has found the best prompt."""
    found = [("A", 0.5), ("B", 1.0), ("C", 0.25), ("D", 0.75)]
    return [trajectory(candidate("start", 0.0), [candidate(text, value)]) for text, value in found]


def test_the_worse_half_goes_on_from_the_best_prompt() -> None:
    before = siblings()
    after = takes(before)
    assert [search.current.prompt.text for search in after] == ["B", "B", "B", "D"]
    assert (after[1], after[3]) == (before[1], before[3])
    assert after[2].best.prompt.text == "B"
    # It is known from then on, so that it is never scored anew; it has been taken once.
    assert after[2].unseen([Prompt("B")]) == ()
    assert takes(takes(after)) == takes(after)


def test_all_know_the_best_prompt_and_go_on_from_their_own() -> None:
    after = knows(siblings())
    assert [search.current.prompt.text for search in after] == ["A", "B", "C", "D"]
    assert all("B" in [known.prompt.text for known in search.history] for search in after)


def test_each_returns_to_its_own_best() -> None:
    search = trajectory(candidate("start", 0.5), [candidate("worse", 0.25)])
    (after,) = returns([search])
    assert after.current == search.initial
    assert after.history == search.history


async def test_scores_are_those_of_the_simulated_task_model() -> None:
    domain = next(iter(DOMAINS))
    prompts = [task(domain).initial, Prompt("Classify carefully: answer with exactly one category label."), Prompt("x")]
    asked: set[Prompt] = set()
    quick = await SimulatedEvaluator(domain, asked, unpaired=False).evaluate(prompts, Split.VAL)
    real = await optimizer(domain, 0, BestOfStep(), unpaired=False).evaluator.evaluate(prompts, Split.VAL)
    assert [evaluation.score for evaluation in quick] == [evaluation.score for evaluation in real]
    assert len({evaluation.score.mean for evaluation in quick}) == 3
    assert asked == set(prompts)
