"""Contract tests: what every implementation of a protocol must do.

A test module derives a class named ``Test…`` from one of these and says what to test::

    class TestRecency(RetrieverContract):
        def make(self) -> Retriever:
            return RecencyRetriever()

They run under pytest (asynchronous ones with ``asyncio_mode = "auto"``) without importing it.
"""
# ruff: noqa: S101 (these classes consist of assertions)

from __future__ import annotations

import asyncio
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import ClassVar

from gpo.cache.store import CompletionStore, Missing
from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.evaluation.metrics import Scorer
from gpo.evaluation.metrics.scorer import explanation
from gpo.models.protocol import Completion, Usage
from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.scoring.candidates import Announce, CandidateScoring, silent
from gpo.strategies.acceptance import Acceptance, BestOfStep
from gpo.strategies.batches import TrainBatches
from gpo.strategies.refinement import Refinement
from gpo.strategies.reflection import NoReflection
from gpo.strategies.retrieval import RecencyRetriever, Retriever
from gpo.strategies.schedule import FixedSchedule, StepSizeSchedule
from gpo.strategies.summary import NoSummary
from gpo.testing.fakes import FakeEvaluator, FakeProposer
from gpo.testing.samples import TRAJECTORIES, candidate, dropped
from gpo.trajectory import Spending, Trajectory


class RetrieverContract(ABC):
    """For ``gpo.strategies.retrieval.Retriever``."""

    @abstractmethod
    def make(self) -> Retriever:
        """The retriever under test."""

    async def test_returns_at_most_k(self) -> None:
        for trajectory in TRAJECTORIES.values():
            for k in range(8):
                neighbours = await self.make().retrieve(trajectory, k=k)
                assert len(neighbours) == min(k, len(trajectory.history) - 1)

    async def test_selects_from_the_history_without_the_current_prompt(self) -> None:
        for trajectory in TRAJECTORIES.values():
            neighbours = await self.make().retrieve(trajectory, k=100)
            assert set(neighbours) <= set(trajectory.history)
            assert trajectory.current.prompt not in {neighbour.prompt for neighbour in neighbours}

    async def test_repeats_no_prompt(self) -> None:
        for trajectory in TRAJECTORIES.values():
            prompts = [neighbour.prompt for neighbour in await self.make().retrieve(trajectory, k=100)]
            assert len(set(prompts)) == len(prompts)

    async def test_a_larger_k_adds_only_less_relevant_candidates(self) -> None:
        for trajectory in TRAJECTORIES.values():
            everything = await self.make().retrieve(trajectory, k=100)
            for k in range(1, len(everything) + 1):
                assert await self.make().retrieve(trajectory, k=k) == everything[-k:]

    async def test_is_deterministic(self) -> None:
        for trajectory in TRAJECTORIES.values():
            first, second = self.make(), self.make()
            assert await first.retrieve(trajectory, k=3) == await second.retrieve(trajectory, k=3)


class ScheduleContract(ABC):
    """For ``gpo.strategies.schedule.StepSizeSchedule``.

    Attributes:
        largest: the largest step size of the schedule; ``None`` is no bound.
    """

    largest: int | None = None

    @abstractmethod
    def make(self) -> StepSizeSchedule:
        """The schedule under test."""

    def test_every_step_may_change_a_word(self) -> None:
        sizes = [self.make()(step) for step in range(100)]
        if self.largest is None:
            assert sizes == [None] * 100
        else:
            assert all(size is not None and 1 <= size <= self.largest for size in sizes)

    def test_depends_on_the_index_alone(self) -> None:
        schedule = self.make()
        forwards = [schedule(step) for step in range(30)]
        assert [schedule(step) for step in reversed(range(30))] == forwards[::-1]


class AcceptanceContract(ABC):
    """For ``gpo.strategies.acceptance.Acceptance``."""

    @abstractmethod
    def make(self) -> Acceptance:
        """The acceptance under test."""

    def test_keeps_the_current_prompt_without_candidates(self) -> None:
        for trajectory in TRAJECTORIES.values():
            assert self.make().choose(trajectory, ()) is trajectory.current

    def test_chooses_a_candidate_or_an_earlier_prompt(self) -> None:
        for trajectory in TRAJECTORIES.values():
            for values in ((0.0,), (1.0,), (0.3, 0.9, 0.9), (0.9, 0.3, 0.0)):
                candidates = tuple(candidate(f"new {index}", value) for index, value in enumerate(values))
                chosen = self.make().choose(trajectory, candidates)
                assert any(chosen is one for one in (*candidates, *trajectory.history))

    def test_never_prefers_the_worse_of_two_candidates(self) -> None:
        better, worse = candidate("better", 0.8), candidate("worse", 0.7)
        for trajectory in TRAJECTORIES.values():
            for candidates in ((better, worse), (worse, better)):
                assert self.make().choose(trajectory, candidates) is not worse

    def test_a_dropped_candidate_is_never_chosen(self) -> None:
        given_up = dropped("given up", 1.0)
        for trajectory in TRAJECTORIES.values():
            assert self.make().choose(trajectory, [given_up]) is trajectory.current
            full = candidate("full", 0.9)
            for candidates in ((given_up, full), (full, given_up)):
                assert self.make().choose(trajectory, candidates) is not given_up


class RefinementContract(ABC):
    """For ``gpo.strategies.refinement.Refinement``."""

    @abstractmethod
    def make(self) -> Refinement:
        """The refinement under test."""

    def test_is_a_text_for_any_evidence_and_step_size(self) -> None:
        for evidence in ("", "Go by what the reflections say."):
            for step_size in (None, 1, 50):
                assert self.make().instruction(evidence, step_size).strip()

    def test_states_the_step_size(self) -> None:
        assert "4321" in self.make().instruction("", 4321)

    def test_is_deterministic(self) -> None:
        assert self.make().instruction("", 7) == self.make().instruction("", 7)


class ScoringContract(ABC):
    """For ``gpo.scoring.candidates.CandidateScoring``: searches of three steps with four candidates each.

    Attributes:
        num_val: size of ``val``.
    """

    num_val: ClassVar[int] = 24

    @abstractmethod
    def make(self) -> CandidateScoring:
        """The scoring under test, for ``num_val`` examples, of which 10 % may stay unscored."""

    async def test_each_score_has_a_value_or_none_for_each_example(self) -> None:
        trajectory, _ = await self._search()
        assert len(trajectory.steps) == 3
        for one in trajectory.history:
            assert one.score.num_examples == self.num_val
            assert 0 <= one.score.mean <= 1
            assert all(value in (None, _value(one.prompt, index)) for index, value in enumerate(one.score.values_E))
            left_out = one.score.partial.num_left_out if one.score.partial else 0
            assert one.score.values_E.count(None) == left_out

    async def test_the_best_prompt_answers_all_examples_in_the_end(self) -> None:
        trajectory, _ = await self._search()
        assert trajectory.best.score.values_E == tuple(_values(trajectory.best.prompt, self.num_val))
        assert trajectory.best.score.partial is None

    async def test_no_prompt_answers_an_example_twice(self) -> None:
        _, evaluator = await self._search()
        assert len(set(evaluator.asked)) == len(evaluator.asked)

    async def test_every_answer_is_counted_in_the_spending(self) -> None:
        trajectory, evaluator = await self._search()
        assert trajectory.spending.task.requests == len(evaluator.asked)

    async def test_every_prompt_is_reported_as_settled(self) -> None:
        progress: list[tuple[int, int]] = []
        await self._search(lambda done, total: progress.append((done, total)))
        assert progress.count((4, 4)) >= 3
        assert all(done <= total for done, total in progress)

    async def test_a_resumed_search_repeats_the_interrupted_one(self) -> None:
        evaluator = _ValEvaluator(self.num_val)
        saved = [await _optimizer(self.make(), evaluator).start(Prompt("start"))]
        saved += [one async for one in _optimizer(self.make(), evaluator).run(saved[0])]
        for trajectory in saved:
            resumed = [trajectory, *[one async for one in _optimizer(self.make(), evaluator).run(trajectory)]]
            assert resumed[-1] == saved[-1]

    async def test_a_prompt_that_cannot_be_scored_is_left_out(self) -> None:
        trajectory, _ = await self._search(refused="start 1")
        assert Prompt("start 1") in trajectory.steps[0].unscored
        assert len(trajectory.steps[0].candidates) == 3

    async def _search(self, announce: Announce = silent, refused: str = "") -> tuple[Trajectory, _ValEvaluator]:
        evaluator = _ValEvaluator(self.num_val, refused)
        optimizer = _optimizer(self.make(), evaluator)
        trajectory = await optimizer.start(Prompt("start"))
        async for changed in optimizer.run(trajectory, announce):
            trajectory = changed
        return trajectory, evaluator


def _value(prompt: Prompt, index: int) -> float:
    """Right or wrong; prompts differ in how often they are right."""
    share = 0.3 + 0.6 * Random(prompt.text).random()
    return float(Random(f"{prompt.text}/{index}").random() < share)


def _values(prompt: Prompt, num_val: int) -> list[float]:
    return [_value(prompt, index) for index in range(num_val)]


class _ValEvaluator(FakeEvaluator):
    """Notes which example each prompt was asked, and refuses one prompt."""

    def __init__(self, num_val: int, refused: str = "") -> None:
        super().__init__(lambda prompt: _values(prompt, num_val))
        self.asked: list[tuple[Prompt, int]] = []
        self._indices, self._refused = range(num_val), Prompt(refused)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        assert split is Split.VAL, "only val steers a search"
        if self._refused in prompts:
            raise PromptUnscored("refused", True, Spending())
        self.asked += [
            (prompt, index) for prompt in prompts for index in (self._indices if indices is None else indices)
        ]
        return await super().evaluate(prompts, split, indices)


def _optimizer(scoring: CandidateScoring, evaluator: Evaluator) -> GPO:
    return GPO(
        retriever=RecencyRetriever(),
        reflector=NoReflection(),
        summarizer=NoSummary(),
        schedule=FixedSchedule(size=5),
        proposer=FakeProposer(lambda current, n, _: [f"{current.prompt.text} {number}" for number in range(n)]),
        evaluator=evaluator,
        acceptance=BestOfStep(),
        num_steps=3,
        num_candidates=4,
        num_neighbours=0,
        train=(),
        batches=TrainBatches(1, 1, seed=0),
        num_exemplars=0,
        seed=0,
        scoring=scoring,
    )


ODD_ANSWERS = (
    "", " ", "\n", "\x00", "…", "The answer is", "####", "####\n", "\\boxed{", "\\boxed{}", "**", "```\n```", "()",
    "( )", "-", "$", "1/0", "1e999", "-1e999/1e999", "9" * 5000, "∞", "٣", "²", "\ud83d", "n't", "not", "(", "[A)",
    "A" * 5000, "the answer is the answer is " * 200, "* " * 2000, "'" * 2000, "=" * 2000, "1 " * 2000,
    "\n" * 2000, "not " * 2000,
)  # fmt: skip
"""Unusual answers of language models; no scorer may fail on them."""


class ScorerContract:
    """For ``gpo.evaluation.metrics.Scorer``.

    Attributes:
        scorer: the scorer under test.
        example: an example of the kind that it scores.
    """

    scorer: ClassVar[Scorer]
    example: ClassVar[Example]

    def test_reads_any_answer(self) -> None:
        for answer in ODD_ANSWERS:
            assert 0.0 <= self.scorer.score(answer, self.example) <= 1.0

    def test_an_empty_answer_is_wrong(self) -> None:
        assert self.scorer.score("", self.example) == 0.0

    def test_every_target_is_right(self) -> None:
        for target in self.example.targets:
            assert self.scorer.score(target, self.example) == 1.0

    def test_any_answer_can_be_explained(self) -> None:
        for answer in ODD_ANSWERS:
            assert isinstance(explanation(self.scorer, answer, self.example), str)

    def test_the_follow_up_is_a_question_or_none(self) -> None:
        question = self.scorer.follow_up(self.example)
        assert question is None or question.strip()


ODD_REPLIES = ("", " ", "\x00", "\ud83d", "{}", "x" * 100_000, "Grüße,\r\n世界")
"""Unusual replies of language models, including a lone surrogate."""


class CompletionStoreContract(ABC):
    """For ``gpo.cache.store.CompletionStore``."""

    @abstractmethod
    def make(self) -> CompletionStore:
        """The store under test; all stores made in one test share their content."""

    @abstractmethod
    def damage(self, key: bytes) -> None:
        """Damage the stored bytes of a completion."""

    async def test_returns_stored_completions(self) -> None:
        for number, (text, truncated) in enumerate((text, truncated) for text in ODD_REPLIES for truncated in (0, 1)):
            key = number.to_bytes(20, "big")
            assert await self.make().find(key) is Missing.CLAIMED
            await self.make().put(key, Completion(text, Usage(requests=1, prompt_tokens=3), bool(truncated)))
            assert await self.make().find(key) == Completion(text, Usage(prompt_tokens=3), bool(truncated))

    async def test_can_be_pickled(self) -> None:
        await self.make().put(b"key", Completion("reply", Usage()))
        there = pickle.loads(pickle.dumps(self.make()))  # noqa: S301  # our own
        assert await there.find(b"key") == Completion("reply", Usage())

    async def test_one_of_many_callers_claims_a_missing_completion(self) -> None:
        store = self.make()
        found = await asyncio.gather(*(store.find(b"key") for _ in range(50)))
        assert found.count(Missing.CLAIMED) == 1
        assert found.count(Missing.ELSEWHERE) == 49
        assert await store.find(b"another") is Missing.CLAIMED

    async def test_a_released_claim_can_be_claimed_again(self) -> None:
        store = self.make()
        assert await store.find(b"key") is Missing.CLAIMED
        await store.release(b"key")
        assert await store.find(b"key") is Missing.CLAIMED
        assert await store.find(b"key") is Missing.ELSEWHERE

    async def test_a_cancelled_caller_leaves_no_claim(self) -> None:
        store = self.make()
        for pauses in range(6):
            asking = asyncio.create_task(store.find(b"key"))
            for _ in range(pauses):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled():
                await store.release(b"key")
        async with asyncio.timeout(20):
            while await store.find(b"key") is Missing.ELSEWHERE:  # noqa: ASYNC110  # a store has no events
                await asyncio.sleep(0.05)

    async def test_the_last_stored_completion_counts(self) -> None:
        store = self.make()
        await store.put(b"key", Completion("first", Usage()))
        await store.put(b"key", Completion("second", Usage()))
        assert await store.find(b"key") == Completion("second", Usage())

    async def test_many_concurrent_calls(self) -> None:
        store = self.make()
        keys = [number.to_bytes(20, "big") for number in range(3000)]
        assert set(await asyncio.gather(*(store.find(key) for key in keys))) == {Missing.CLAIMED}
        await asyncio.gather(*(store.put(key, Completion(key.hex(), Usage())) for key in keys))
        found = await asyncio.gather(*(store.find(key) for key in keys))
        assert found == [Completion(key.hex(), Usage()) for key in keys]

    async def test_damage_is_detected_and_repaired(self) -> None:
        store = self.make()
        await store.put(b"key", Completion("reply", Usage()))
        assert await store.find(b"key") == Completion("reply", Usage())
        self.damage(b"key")
        assert await store.find(b"key") is Missing.CLAIMED
        await store.put(b"key", Completion("reply", Usage()))
        assert await store.find(b"key") == Completion("reply", Usage())
