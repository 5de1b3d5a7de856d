from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.testing.samples import candidate, dropped, trajectory
from gpo.trajectory import Candidate, Direction, Failure, Proposal, Samples, Spending, Step, Trajectory, best_of

texts = st.sampled_from("abcdefgh")
means = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
rounds = st.lists(st.lists(st.tuples(texts, means), max_size=4), max_size=5)

PROPOSAL = Proposal(
    10,
    Direction(),
    (Prompt("new"),),
    Samples(num_malformed=1),
    spending=Spending(optimizer=Usage(requests=3, cost_usd=0.25)),
)


def grown(rounds: Sequence[Sequence[tuple[str, float]]]) -> Trajectory:
    """A search that proposes the prompts of each round and scores those that are new."""
    search = Trajectory(candidate("a", 0.5))
    for proposed in rounds:
        means = {Prompt(text): mean for text, mean in reversed(proposed)}
        fresh = search.unseen(Prompt(text) for text, _ in proposed)
        scored = tuple(candidate(prompt.text, means[prompt]) for prompt in fresh)
        search = search.append(step(len(search.steps), scored, search.current))
    return search


def step(index: int, candidates: tuple[Candidate, ...] = (), successor: Candidate | None = None) -> Step:
    spending = Spending(task=Usage(requests=len(candidates)), optimizer=Usage(requests=1))
    return Step(index, 10, Direction(), candidates, successor or candidate("successor"), Samples(), spending)


@given(rounds)
def test_the_history_holds_each_prompt_once(rounds: list[list[tuple[str, float]]]) -> None:
    prompts = [candidate.prompt for candidate in grown(rounds).history]
    assert len(set(prompts)) == len(prompts)
    assert set(prompts) == {Prompt("a")} | {Prompt(text) for proposed in rounds for text, _ in proposed}


@given(rounds)
def test_the_best_is_the_earliest_with_the_highest_mean(rounds: list[list[tuple[str, float]]]) -> None:
    search = grown(rounds)
    highest = max(candidate.score.mean for candidate in search.history)
    assert search.best is next(candidate for candidate in search.history if candidate.score.mean == highest)


def test_unseen_keeps_the_order_and_each_prompt_once() -> None:
    search = trajectory(candidate("a"), [candidate("b")])
    assert search.unseen(map(Prompt, "dbcadc")) == (Prompt("d"), Prompt("c"))


@pytest.mark.parametrize("index", [-1, 0, 2, 7])
def test_a_step_out_of_order_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"step {index} does not follow 1 steps"):
        Trajectory(candidate("a")).append(step(0)).append(step(index))


def test_two_updates_at_once_are_refused() -> None:
    under_way = Trajectory(candidate("a")).begin(PROPOSAL)
    with pytest.raises(ValueError, match="has a proposal already"):
        under_way.begin(PROPOSAL)


@given(st.integers(0, 5))
def test_spending_adds_up(num_steps: int) -> None:
    search = Trajectory(candidate("a"), initial_spending=Spending(task=Usage(requests=7, prompt_tokens=70)))
    for index in range(num_steps):
        search = search.append(step(index, (candidate(f"{index}/0"), candidate(f"{index}/1"))))
    assert search.spending.task == Usage(requests=7 + 2 * num_steps, prompt_tokens=70)
    assert search.spending.optimizer == Usage(requests=num_steps)
    assert search.begin(PROPOSAL).spending.optimizer == Usage(requests=num_steps + 3, cost_usd=0.25)


def test_a_trajectory_is_immutable() -> None:
    search = trajectory(candidate("a"))
    before = replace(search)
    assert search.history == (search.initial,)
    search.begin(PROPOSAL)
    later = search.append(step(0, (candidate("b"),)))
    assert search == before
    assert len(later.history) == 2
    with pytest.raises(FrozenInstanceError):
        search.steps = ()  # type: ignore[misc]


def test_a_dropped_candidate_is_never_the_best_and_never_tried_again() -> None:
    search = trajectory(candidate("a", 0.5), [dropped("b", 1.0), candidate("c", 0.75)])
    assert search.best.prompt == search.current.prompt == Prompt("c")
    assert search.unseen([Prompt("b"), Prompt("d")]) == (Prompt("d"),)
    assert best_of([dropped("b", 1.0)]) is None


class Meddling:
    """A part of a trajectory, whose pickling makes the owner compute its properties, as another thread may."""

    def __init__(self) -> None:
        self.owner: Trajectory | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        assert self.owner is not None
        assert self.owner.history
        return (tuple, ())


def test_a_trajectory_can_be_pickled_while_another_thread_computes_its_properties() -> None:
    meddling = Meddling()
    meddling.owner = replace(grown([[("b", 1.0)]]), proposal=meddling)  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(meddling.owner)).proposal == ()  # noqa: S301  # our own


def test_computed_properties_are_not_pickled() -> None:
    search = grown([[("b", 1.0), ("c", 0.25)]])
    assert search.best.prompt.words == ("b",)
    assert search.initial.prompt.id
    assert search.initial.score.scored
    there = pickle.loads(pickle.dumps(search))  # noqa: S301  # our own
    assert there == search
    assert [len(value.__dict__) for value in (there, there.initial.prompt, there.initial.score)] == [5, 1, 3]


def test_long_texts_of_a_failure_lose_their_middle() -> None:
    failure = Failure.abridged("Q" * 5000 + "?", "4", "A" * 2000, "read 5")
    assert (len(failure.input), failure.input[0], failure.input[-1]) == (2000, "Q", "?")
    assert (failure.target, failure.answer, failure.reason) == ("4", "A" * 2000, "read 5")
