from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest

import gpo.scoring.adaptive as adaptive_scoring
from gpo.checkpoint import Checkpoint, decode, encode
from gpo.data.task import Split
from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.scoring.abilities import Abilities, Answers, Variances, fit
from gpo.scoring.adaptive import Adaptive, fit_search
from gpo.scoring.candidates import FullScoring
from gpo.strategies.acceptance import BestSoFar
from gpo.strategies.retrieval import ImportanceRetriever
from gpo.strategies.stopping import StoppingRule
from gpo.testing.fakes import FakeEvaluator, FakeProposer
from gpo.testing.samples import trajectory
from gpo.trajectory import Candidate, Trajectory
from tests.optimizers import fake_optimizer

SIZE, BLOCK, MOST = 100, 5, 40
Values = Sequence[float | None]


class Recording(FakeEvaluator):
    """Notes which examples each prompt is asked, in order."""

    def __init__(self, values: Callable[[Prompt], Values]) -> None:
        super().__init__(values)
        self.asked: dict[Prompt, list[int]] = {}

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        chosen = list(range(SIZE)) if indices is None else list(indices)
        for prompt in prompts:
            self.asked.setdefault(prompt, []).extend(chosen)
        return await super().evaluate(prompts, split, indices)


def adaptive(**changes: object) -> Adaptive:
    made = Adaptive(num_examples=SIZE, block=BLOCK, most=MOST, max_unscored=0.05, seed=3)
    return replace(made, **changes)


def quality(prompt: Prompt) -> float:
    """A prompt is a number of words; each adds something."""
    return min(0.95, 0.2 + 0.05 * len(prompt.words))


def right_about(prompt: Prompt) -> Values:
    """Right about the easiest examples, with some luck of the prompt's own."""
    return [
        float(0.8 * Random(f"{index}").random() + 0.2 * Random(f"{index}/{prompt.id}").random() < quality(prompt))
        for index in range(SIZE)
    ]


def longer(current: Candidate, n: int, seed: int) -> list[str]:
    """Some candidates are longer than the current prompt, and others shorter."""
    draw = Random(f"{seed}")
    words = current.prompt.words
    return [" ".join(f"w{draw.random()}" for _ in range(max(1, len(words) + draw.randint(-3, 2)))) for _ in range(n)]


def optimizer(**changes: object) -> GPO:
    settings: dict[str, object] = {
        "retriever": ImportanceRetriever(),
        "proposer": FakeProposer(longer),
        "evaluator": Recording(right_about),
        "acceptance": BestSoFar(),
        "num_steps": 6,
        "num_candidates": 8,
        "num_neighbours": 3,
        "scoring": adaptive(),
    }
    return fake_optimizer(**{**settings, **changes})


async def search(gpo: GPO, start: Trajectory | None = None) -> list[Trajectory]:
    start = start or await gpo.start(Prompt("one two"))
    return [start, *[later async for later in gpo.run(start)]]


async def test_a_search_finds_as_good_a_prompt_with_a_sixth_of_the_calls() -> None:
    full = (await search(optimizer(scoring=FullScoring())))[-1]
    quick = (await search(optimizer()))[-1]
    assert quality(quick.best.prompt) >= quality(full.best.prompt) - 0.051
    assert quick.spending.task.requests < full.spending.task.requests / 6


async def test_a_step_begins_with_the_model_that_the_step_before_it_ended_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimating the variances takes most of a step's time; the start, each step and the confirmation do it once."""
    estimated = 0
    adaptive_scoring._fitted_once.cache_clear()

    def counted(answers: Answers, variances: Variances | None = None) -> Abilities:
        nonlocal estimated
        estimated += variances is None
        return fit(answers, variances)

    monkeypatch.setattr("gpo.scoring.abilities.fit", counted)
    await search(optimizer(num_steps=3))
    assert estimated == 1 + 3 + 1


async def test_the_initial_prompt_answers_random_examples_and_has_an_estimate() -> None:
    gpo = optimizer()
    start = (await gpo.start(Prompt("one two"))).initial.score
    assert start.partial is not None
    assert start.partial.num_left_out == SIZE - MOST
    assert start.mean == Score(start.scored).mean
    assert start.partial.stderr == pytest.approx(Score(start.scored).stderr, rel=0.1)
    assert start.num_unscored == 0
    (asked,) = gpo.evaluator.asked.values()  # type: ignore[attr-defined]
    assert asked != sorted(asked)


async def test_equal_answers_of_the_initial_prompt_leave_an_error() -> None:
    """The standard error of equal answers is 0, as if the rest of ``val`` were known."""
    start = (await optimizer(evaluator=Recording(lambda _: [0.0] * SIZE)).start(Prompt("one two"))).initial.score
    assert start.partial is not None
    assert 0.01 < (start.partial.stderr or 0.0) < 0.1


async def test_candidates_of_a_step_answer_the_same_blocks_and_fewer_go_on_each_time() -> None:
    gpo = optimizer(num_steps=1)
    start = await gpo.start(Prompt("one two"))
    await anext(run := gpo.run(start))
    trajectory = await anext(run)
    asked = [gpo.evaluator.asked[one.prompt] for one in trajectory.history[1:]]  # type: ignore[attr-defined]
    longest = max(asked, key=len)
    for indices in asked:
        assert indices == longest[: len(indices)]
        assert len(indices) in (5, 10, 20, 40)
        assert len(set(indices)) == len(indices)
    for bound, most in ((5, 4), (10, 2), (20, 1)):
        assert sum(len(indices) > bound for indices in asked) <= most


async def test_each_target_has_its_share_of_val_in_the_blocks_of_a_step() -> None:
    """The score is the mean over all examples, so a rare target must not count as much as a frequent one."""
    targets = tuple("abc"[index % 3 if index < 45 else 0] for index in range(SIZE))
    gpo = optimizer(num_steps=1, scoring=adaptive(targets=targets, block=4, most=32))
    await anext(run := gpo.run(await gpo.start(Prompt("one two"))))
    trajectory = await anext(run)
    asked = [gpo.evaluator.asked[one.prompt] for one in trajectory.history[1:]]  # type: ignore[attr-defined]
    sizes = {len(indices) for indices in asked}
    assert len(sizes) > 1
    for indices in asked:
        counts = Counter(targets[index] for index in indices)
        for target in "abc":
            assert abs(counts[target] - len(indices) * targets.count(target) / SIZE) <= 1


async def test_the_best_prompt_and_a_close_second_are_confirmed_on_all_of_val() -> None:
    *_, last = await search(optimizer())
    assert last.is_confirmed
    assert last.best.score.values_E == tuple(right_about(last.best.prompt))
    assert last.confirmation_spending.task.requests > 0
    assert last.spending.task.requests == sum(
        sum(value is not None for value in candidate.score.values_E) for candidate in last.history
    )
    rivals = [one for one in last.history if one.score.partial is not None]
    assert all(one.score.lower <= last.best.score.mean for one in rivals)


async def test_a_prompt_that_stays_current_answers_more_examples() -> None:
    """One that is lucky on the first examples would otherwise stay for the rest of the search."""
    lucky = set(Random("3/adaptive").sample(range(SIZE), MOST))

    def values(prompt: Prompt) -> Values:
        first = [1.0 if index in lucky else 0.0 for index in range(SIZE)]
        return first if prompt.text == "one two" else list(right_about(Prompt("a b c d e f g h i j k l")))

    states = [one for one in await search(optimizer(evaluator=Recording(values))) if one.proposal is None]
    numbers = [len(one.initial.score.scored) for one in states]
    assert numbers[:3] == [MOST, MOST, MOST + BLOCK]
    assert states[1].current == states[1].initial
    assert states[-1].best.prompt != states[-1].initial.prompt
    assert states[-1].spending.task.requests == sum(len(one.score.scored) for one in states[-1].history)


async def test_all_estimates_come_from_the_newest_fit() -> None:
    *_, before_last, last = (one for one in await search(optimizer()) if one.proposal is None)
    assert before_last.history[3].score.partial != last.history[3].score.partial
    estimates = fit_search(last).estimates
    for candidate in last.history:
        if candidate.score.partial is not None:
            mean, stderr = estimates[candidate.prompt]
            assert candidate.score.partial.mean == pytest.approx(mean, abs=0.02)
            assert candidate.score.partial.stderr == pytest.approx(stderr, abs=0.02)
            assert candidate.score.mean == candidate.score.partial.mean


@pytest.mark.parametrize("number", range(0, 14, 2))
async def test_a_search_resumed_from_any_point_has_the_same_result(number: int) -> None:
    undisturbed = await search(optimizer())
    saved = decode(encode(Checkpoint(undisturbed[number], {}))).trajectory
    assert saved == undisturbed[number]
    resumed = optimizer()
    assert (await search(resumed, saved))[-1] == undisturbed[-1]
    # What is saved is not paid for again.
    for candidate in saved.history:
        known = {index for index, value in enumerate(candidate.score.values_E) if value is not None}
        assert not known & set(resumed.evaluator.asked.get(candidate.prompt, ()))  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1, 3, 24])
async def test_a_small_val_is_answered_as_a_whole_by_the_initial_prompt(size: int) -> None:
    gpo = optimizer(
        scoring=adaptive(num_examples=size),
        evaluator=FakeEvaluator(lambda prompt: right_about(prompt)[:size]),
        num_steps=3,
    )
    *_, last = await search(gpo)
    assert last.initial.score == Score(tuple(right_about(last.initial.prompt)[:size]))
    assert last.is_confirmed


async def test_failed_calls_stay_unscored_and_too_many_drop_the_candidate() -> None:
    def values(prompt: Prompt) -> Values:
        known = list(right_about(prompt))
        if prompt.text == "one two":
            return known
        # Some prompts never get an answer, and others miss every 50th.
        every = 1 if Random(f"{prompt.id}").random() < 0.3 else 50
        return [None if index % every == 0 else value for index, value in enumerate(known)]

    *_, last = await search(optimizer(evaluator=Recording(values), scoring=adaptive(max_unscored=0.05)))
    unscored = [prompt for step in last.steps for prompt in step.unscored]
    assert unscored
    for candidate in last.history:
        assert candidate.prompt not in unscored
        assert candidate.score.num_unscored <= 2
    assert last.best.score.num_unscored == 2


async def test_a_best_prompt_that_the_endpoint_refuses_at_last_is_never_chosen() -> None:
    class Refusing(Recording):
        refused: Prompt | None = None

        async def evaluate(
            self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
        ) -> Sequence[Evaluation]:
            if indices is not None and len(indices) > MOST and self.refused in (None, prompts[0]):
                self.refused = prompts[0]
                raise PromptUnscored("filtered", is_refused=True, spending=None)
            return await super().evaluate(prompts, split, indices)

    evaluator = Refusing(right_about)
    *_, last = await search(optimizer(evaluator=evaluator))
    (refused,) = [candidate for candidate in last.history if candidate.prompt == evaluator.refused]
    assert refused.is_dropped
    assert last.best.prompt != refused.prompt
    assert last.is_confirmed


async def test_an_endpoint_that_is_away_during_confirmation_is_an_error() -> None:
    class Away(Recording):
        async def evaluate(
            self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
        ) -> Sequence[Evaluation]:
            if indices is not None and len(indices) > MOST:
                raise PromptUnscored("no answer", is_refused=False, spending=None)
            return await super().evaluate(prompts, split, indices)

    with pytest.raises(PromptUnscored, match="no answer"):
        await search(optimizer(evaluator=Away(right_about)))


async def test_a_search_goes_on_if_the_confirmed_prompt_misses_the_target() -> None:
    """The prompts are right about what they are asked first, and wrong about half of the rest."""
    easy = set(Random("3/adaptive").sample(range(SIZE), MOST))

    def values(prompt: Prompt) -> Values:
        return [1.0 if index in easy else float(index % 2) for index in range(SIZE)]

    rule = StoppingRule(target=0.8)
    states = await search(optimizer(evaluator=Recording(values), stopping=rule, num_steps=2))
    assert rule.reason(states[0]) is not None
    assert rule.reason(states[-1]) is None
    assert len(states[-1].steps) == 2
    assert states[-1].is_confirmed


async def test_a_long_search_fits_the_model_to_its_best_and_newest_prompts() -> None:
    *_, last = await search(optimizer(num_steps=20))
    assert len(last.history) > 120
    fitted = fit_search(last)
    assert len(fitted.rows) == 96
    assert {last.initial.prompt, last.best.prompt, last.current.prompt} <= fitted.rows.keys()
    assert {candidate.prompt for candidate in last.steps[-1].candidates} <= fitted.rows.keys()


def test_a_score_is_chosen_by_its_mean_less_one_standard_error() -> None:
    sure = Candidate(Prompt("sure"), Score((1.0, 0.0)))
    unsure = Candidate(Prompt("unsure"), Score((1.0, None), Partial(1, 0.7, 0.3)))
    better = Candidate(Prompt("better"), Score((1.0, None), Partial(1, 0.7, 0.1)))
    trajectory = Trajectory(sure)
    assert BestSoFar().choose(trajectory, [unsure]) == sure
    assert BestSoFar().choose(trajectory, [unsure, better]) == better
    assert BestSoFar().choose(trajectory, []) == sure


class Failing(Recording):
    """Refuses some evaluations of some examples."""

    def __init__(self, refuses: Callable[[Prompt, Sequence[int]], bool], *, is_refused: bool = True) -> None:
        super().__init__(right_about)
        self.refuses, self.is_refused = refuses, is_refused

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        if indices is not None and self.refuses(prompts[0], indices):
            raise PromptUnscored("filtered", is_refused=self.is_refused, spending=None)
        return await super().evaluate(prompts, split, indices)


async def test_an_example_that_every_prompt_is_refused_on_is_an_error_and_does_not_drop_them_all() -> None:
    evaluator = Failing(lambda _, indices: len(indices) > MOST)
    with pytest.raises(PromptUnscored, match="filtered"):
        await search(optimizer(evaluator=evaluator))


@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_failure_of_the_current_prompt_s_further_answers_changes_nothing(is_refused: bool) -> None:
    asked: list[Prompt] = []

    def refuses(prompt: Prompt, indices: Sequence[int]) -> bool:
        known = set(evaluator.asked.get(prompt, ()))
        is_recheck = len(indices) == BLOCK and len(known) >= MOST
        asked.extend([prompt] * is_recheck)
        return is_recheck

    evaluator = Failing(refuses, is_refused=is_refused)
    start = await optimizer(evaluator=evaluator).start(Prompt(" ".join(f"w{index}" for index in range(15))))
    *_, last = await search(optimizer(evaluator=evaluator), start)
    assert asked
    assert not last.initial.is_dropped


async def test_an_initial_prompt_without_a_single_score_is_an_error() -> None:
    size = 1_000
    gpo = optimizer(scoring=adaptive(num_examples=size), evaluator=FakeEvaluator(lambda _: [None] * size), num_steps=0)
    with pytest.raises(PromptUnscored, match="40 of 1000 val examples stayed unscored"):
        await gpo.start(Prompt("one two"))


def test_a_second_prompt_that_is_close_to_the_confirmed_best_is_confirmed_too() -> None:
    def estimated(text: str, mean: float, stderr: float) -> Candidate:
        return Candidate(Prompt(text), Score((1.0,) * 20 + (None,) * 80, Partial(80, mean, stderr)))

    confirmed = Candidate(Prompt("best"), Score((1.0,) * 91 + (0.0,) * 9))
    close, far = estimated("close", 0.90, 0.03), estimated("far", 0.7, 0.03)
    known = trajectory(estimated("start", 0.3, 0.05), [confirmed, close, far])
    (only,) = adaptive().unconfirmed(known)
    assert only.candidate == close
    assert not adaptive().unconfirmed(trajectory(estimated("start", 0.3, 0.05), [confirmed, far]))


def test_no_first_block_is_larger_than_what_a_candidate_answers_at_most() -> None:
    assert adaptive(block=10, most=4).next_block(0, 8, 8) == 4
