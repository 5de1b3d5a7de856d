"""A candidate that cannot be scored is dropped, and the search continues."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gpo.data.task import Split
from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.scoring.candidates import CandidateScorer, FullScoring, silent
from gpo.trajectory import Spending

SPENT = Spending(task=Usage(requests=3))


class Refusing:
    """An evaluator that cannot score the prompts named."""

    def __init__(self, names: Sequence[str], *, is_refused: bool) -> None:
        self.names, self.is_refused = names, is_refused

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        if prompts[0].text in self.names:
            raise PromptUnscored("3 of 3 unscored", self.is_refused, SPENT)
        return [Evaluation(Score((1.0,)), Usage(requests=1)) for _ in prompts]


async def outcomes(names: Sequence[str], *, is_refused: bool) -> list[object]:
    evaluator = Refusing(names, is_refused=is_refused)
    async with CandidateScorer(evaluator, FullScoring(), 2, silent) as scorer:
        return list(await scorer.outcomes([Prompt("one"), Prompt("two")]))


@pytest.mark.parametrize("is_refused", [False, True])
async def test_one_unscored_candidate_leaves_the_others(is_refused: bool) -> None:
    one, two = await outcomes(["one"], is_refused=is_refused)
    assert isinstance(one, PromptUnscored)
    assert isinstance(two, Evaluation)


async def test_candidates_that_the_endpoint_refuses_are_dropped_even_if_none_is_left() -> None:
    assert all(isinstance(one, PromptUnscored) for one in await outcomes(["one", "two"], is_refused=True))


async def test_an_endpoint_that_answers_for_no_candidate_is_an_error() -> None:
    with pytest.raises(PromptUnscored):
        await outcomes(["one", "two"], is_refused=False)
