"""Scoring the candidates of a step, which begins while others are still being written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from gpo.concurrency import FailFastGroup
from gpo.data.task import Split
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt

_T = TypeVar("_T")

Announce = Callable[[int, int], object]
"""Told how many of a step's prompts have their final score, and how many they are; at most, while some are sampled."""


def silent(evaluated: int, to_evaluate: int) -> None:
    """An ``Announce`` for those whom nobody watches."""


class CandidateScoring(Protocol):
    """How a step's candidates are scored on ``val``: first each for itself, then all together."""

    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        """What may be asked about a prompt before the others are known.

        ``settled`` is to be called where the score is final. Raises what the evaluator raises.
        """
        ...

    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Evaluation]:
        """The final evaluations, in the order of the prompts; all that was spent since ``begun`` is in them.

        ``settled`` is to be called once for each prompt whose score becomes final. Raises what the evaluator raises.
        """
        ...


@dataclass(frozen=True, slots=True)
class FullScoring:
    """Every candidate answers every example."""

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
    ) -> Sequence[Evaluation]:
        return begun


class CandidatesUnderWay:
    """The candidates of one step while they are scored.

    An asynchronous context, at whose end nothing is at work any more. Whatever fails ends all the rest at once: nothing
    more is paid for.

    Args:
        expected: how many prompts there will be, at most.
        announce: told whenever a score is final, and when the number of prompts is known.
    """

    def __init__(self, evaluator: Evaluator, scoring: CandidateScoring, expected: int, announce: Announce) -> None:
        self._evaluator, self._scoring = evaluator, scoring
        self._num_settled, self._expected, self._announce = 0, expected, announce
        self._work = FailFastGroup()
        self._begun: dict[Prompt, asyncio.Task[Evaluation]] = {}

    async def __aenter__(self) -> Self:
        await self._work.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._work.__aexit__(*exception)

    def begin(self, prompt: Prompt) -> None:
        """Start to score a prompt, unless that was done before."""
        if prompt not in self._begun:
            self._begun[prompt] = self._work.begin(self._scoring.begin(self._evaluator, prompt, self._settled))

    async def beside(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """What a coroutine returns that works beside the scoring; a failure of either ends both."""
        return await self._work.result(self._work.begin(coroutine))

    async def evaluations(self, prompts: Sequence[Prompt]) -> Sequence[Evaluation]:
        """The final evaluation of each prompt, in order; those that were not begun are begun now."""
        self._expected = len(prompts)
        self._announce(self._num_settled, self._expected)
        for prompt in prompts:
            self.begin(prompt)
        begun = [await self._work.result(self._begun[prompt]) for prompt in prompts]
        return await self._scoring.finish(self._evaluator, prompts, begun, self._settled)

    def _settled(self) -> None:
        self._num_settled += 1
        self._announce(self._num_settled, self._expected)
