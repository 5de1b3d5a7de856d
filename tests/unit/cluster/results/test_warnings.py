"""A score that may show a wrong setting comes with a warning that names the option."""

from __future__ import annotations

import pytest

from cluster.results.warnings import score_warnings
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.evaluation.metrics import LabelScorer
from gpo.models.protocol import Completion, Message, Sampling, Usage
from gpo.prompt import Prompt
from gpo.score import Flaws, Score

SCORER = LabelScorer(("positive", "negative"))
EXAMPLES = tuple(Example(str(number), ("positive",)) for number in range(4))
TASK = Task("sentiment", Prompt("Which?"), {Split.TRAIN: (), Split.VAL: EXAMPLES, Split.TEST: ()}, SCORER)


class Replying:
    """A model that gives the same reply to every question."""

    def __init__(self, text: str, *, truncated: bool = False) -> None:
        self.reply = Completion(text, Usage(requests=1), truncated)

    async def complete(self, messages: list[Message], sampling: Sampling) -> Completion:
        return self.reply


@pytest.mark.parametrize(
    ("text", "truncated", "mean", "flaws"),
    [
        ("positive", False, 1.0, Flaws()),
        ("negative", False, 0.0, Flaws()),
        ("", False, 0.0, Flaws(empty=4)),
        ("", True, 0.0, Flaws(cut=4)),
        ("<think>It is positive, I", True, 0.0, Flaws(cut=4)),
        ("<think>It is positive, I", False, 0.0, Flaws(empty=4)),
        ("I would say it is", True, 0.0, Flaws(cut=4)),
        ("positive, because the", True, 1.0, Flaws()),
        ("I cannot tell.", False, 0.0, Flaws(unreadable=4)),
    ],
)
async def test_answers_that_say_nothing_are_counted(text: str, truncated: bool, mean: float, flaws: Flaws) -> None:
    evaluator = LocalEvaluator(TASK, Replying(text, truncated=truncated), Sampling(), RuleGrader(SCORER))
    (evaluation,) = await evaluator.evaluate([TASK.initial], Split.VAL)
    assert (evaluation.score.mean, evaluation.score.flaws) == (mean, flaws)


@pytest.mark.parametrize(
    ("flaws", "option"),
    [
        (Flaws(cut=3), "sampling.max_tokens"),
        (Flaws(empty=3), "thinking"),
        (Flaws(unreadable=3), "answer.kind"),
    ],
)
def test_more_than_a_fifth_is_worth_a_warning(flaws: Flaws, option: str) -> None:
    (warning,) = score_warnings(Score((0.0,) * 10, flaws=flaws), "the best prompt on val")
    assert warning.startswith("3 of 10 answers to the best prompt on val are ")
    assert option in warning
    assert not list(score_warnings(Score((1.0,) + (0.0,) * 19, flaws=flaws), "the best prompt on val"))


@pytest.mark.parametrize(
    ("values", "num"), [((0.0,) * 5, 1), ((0.0,) * 4, 0), ((0.0,) * 5 + (0.1,), 0), ((None,) * 9, 0)]
)
def test_answers_that_all_score_0_are_worth_a_warning(values: tuple[float | None, ...], num: int) -> None:
    warnings = list(score_warnings(Score(values), "the best prompt on val"))
    assert (
        warnings
        == [
            "all 5 answers to the best prompt on val scored 0; look at them with gpo show, and check metric and targets"
        ]
        * num
    )
