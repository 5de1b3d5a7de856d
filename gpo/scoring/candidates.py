"""Scores the candidates of a step, starting while others are still being sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

from gpo.data.task import Split
from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.runtime.concurrency import FailFastGroup
from gpo.score import Score
from gpo.trajectory import Candidate, Spending, Trajectory

_T = TypeVar("_T")

Announce = Callable[[int, int], object]
"""Called with the number of prompts that have their final score, and the (maximal) number of prompts in the step."""


Outcome = Evaluation | PromptUnscored
"""The final evaluation of a candidate, or why it cannot be scored."""


def silent(evaluated: int, to_evaluate: int) -> None:
    """An ``Announce`` that does nothing."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Examples of ``val`` without a known score for a prompt; ``indices`` are their positions."""

    candidate: Candidate
    indices: tuple[int, ...]

    @classmethod
    def of(cls, candidate: Candidate) -> Unanswered:
        """All such examples of a candidate."""
        return cls(candidate, tuple(index for index, value in enumerate(candidate.score.values_E) if value is None))

    def score_with(self, outcome: Outcome) -> Score:
        """The candidate's score, completed; if the endpoint refused the prompt, the score of a dropped candidate.

        Raises:
            PromptUnscored: the endpoint is unavailable.
        """
        before = self.candidate.score
        if isinstance(outcome, PromptUnscored):
            if before.partial is None or not outcome.is_refused:
                raise outcome
            return replace(before, partial=replace(before.partial, stderr=None))
        new = dict(zip(self.indices, outcome.score.values_E, strict=True))
        values = tuple(new.get(index, value) for index, value in enumerate(before.values_E))
        num_left_out = (before.partial.num_left_out if before.partial else 0) - len(self.indices)
        partial = replace(before.partial, num_left_out=num_left_out) if before.partial and num_left_out > 0 else None
        return Score(values, partial, before.flaws + outcome.score.flaws)


class StepScoring(Protocol):
    """Scores the candidates of one step: first each one alone, then all together."""

    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        """Evaluate a prompt as far as possible without knowing the others.

        Call ``settled`` if the score is final. Raises what the evaluator raises.
        """
        ...

    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Outcome]:
        """Return the outcomes in the order of the prompts, including everything spent since ``begun``.

        Call ``settled`` once for each prompt whose score becomes final. Raises what the evaluator raises.
        """
        ...


class CandidateScoring(Protocol):
    """How the prompts of a search are scored on ``val``."""

    async def first(self, evaluator: Evaluator, prompt: Prompt) -> Evaluation:
        """Evaluate the initial prompt. Raises what the evaluator raises."""
        ...

    def step(self, trajectory: Trajectory) -> StepScoring:
        """The scoring of the next step's candidates."""
        ...

    def recheck(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        """What earlier prompts answer while the candidates of the next step are scored; may be empty."""
        ...

    def unconfirmed(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        """What prompts must still answer before the best one is known, once the last step is taken; may be empty."""
        ...

    def renewed(
        self, trajectory: Trajectory, candidates: Sequence[Candidate] = ()
    ) -> tuple[Trajectory, Sequence[Candidate]]:
        """The trajectory and the new candidates of its current prompt, with scores that can be compared."""
        ...


class NothingEstimated:
    """The part of a ``CandidateScoring`` whose best prompt of each step has a complete score."""

    __slots__ = ()

    async def first(self, evaluator: Evaluator, prompt: Prompt) -> Evaluation:
        (evaluation,) = await evaluator.evaluate([prompt], Split.VAL)
        return evaluation

    def recheck(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        return ()

    def unconfirmed(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        return ()

    def renewed(
        self, trajectory: Trajectory, candidates: Sequence[Candidate] = ()
    ) -> tuple[Trajectory, Sequence[Candidate]]:
        return trajectory, candidates


@dataclass(frozen=True, slots=True)
class FullScoring(NothingEstimated):
    """Scores every candidate on every example."""

    def step(self, trajectory: Trajectory) -> StepScoring:
        return self

    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        (evaluation,) = await evaluator.evaluate([prompt], Split.VAL)
        settled()
        return evaluation

    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Outcome]:
        return begun


async def evaluated(
    evaluator: Evaluator, prompt: Prompt, indices: Sequence[int] | None, split: Split = Split.VAL
) -> Outcome:
    """The evaluation of a prompt, or why it cannot be scored; see ``Evaluator.evaluate``."""
    try:
        (evaluation,) = await evaluator.evaluate([prompt], split, indices)
    except PromptUnscored as failure:
        return failure
    return evaluation


def too_many_unscored(num_unscored: int, num_examples: int, tolerated: float, spending: Spending) -> PromptUnscored:
    """The error for a prompt with too many examples whose calls failed."""
    return PromptUnscored(
        f"{num_unscored} of {num_examples} val examples stayed unscored with one prompt; evaluation.max_unscored "
        f"tolerates a share of {tolerated:g}, and never all; look at the endpoint's errors, or raise it",
        False,
        spending,
    )


class CandidateScorer:
    """Scores the candidates of one step; an asynchronous context manager.

    The first failure cancels everything else, so that no further calls are paid for. Nothing runs after the context.

    Args:
        expected: the largest possible number of prompts.
        announce: called when a score is final, and when the number of prompts is known.
    """

    def __init__(self, evaluator: Evaluator, scoring: StepScoring, expected: int, announce: Announce) -> None:
        self._evaluator, self._scoring = evaluator, scoring
        self._num_settled, self._expected, self._announce = 0, expected, announce
        self._work = FailFastGroup()
        self._begun: dict[Prompt, asyncio.Task[Outcome]] = {}

    async def __aenter__(self) -> Self:
        await self._work.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._work.__aexit__(*exception)

    def begin(self, prompt: Prompt) -> None:
        """Start to score a prompt, unless it has started before."""
        if prompt not in self._begun:
            self._begun[prompt] = self._work.begin(self._attempt(prompt))

    def begin_alongside(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a coroutine that runs concurrently with the scoring; a failure of either cancels both."""
        return self._work.begin(coroutine)

    async def result(self, task: asyncio.Task[_T]) -> _T:
        """The result of such a coroutine, or the first failure of all."""
        return await self._work.result(task)

    async def _attempt(self, prompt: Prompt) -> Outcome:
        try:
            return await self._scoring.begin(self._evaluator, prompt, self._settled)
        except PromptUnscored as failure:
            self._settled()
            return failure

    async def outcomes(self, prompts: Sequence[Prompt]) -> Sequence[Outcome]:
        """Return the outcome for each prompt in order; start those that have not started.

        Raises:
            PromptUnscored: no prompt could be scored, and the endpoint did not refuse them: it is unavailable.
        """
        self._expected = len(prompts)
        self._announce(self._num_settled, self._expected)
        for prompt in prompts:
            self.begin(prompt)
        begun = [await self._work.result(self._begun[prompt]) for prompt in prompts]
        scored = {prompt: one for prompt, one in zip(prompts, begun, strict=True) if isinstance(one, Evaluation)}
        finished = await self._scoring.finish(self._evaluator, list(scored), list(scored.values()), self._settled)
        final = dict(zip(scored, finished, strict=True))
        outcomes = [final.get(prompt, one) for prompt, one in zip(prompts, begun, strict=True)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, PromptUnscored)]
        if failures and len(failures) == len(outcomes) and not all(failure.is_refused for failure in failures):
            raise failures[0]
        return outcomes

    def _settled(self) -> None:
        self._num_settled += 1
        self._announce(self._num_settled, self._expected)
