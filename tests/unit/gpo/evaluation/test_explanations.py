from __future__ import annotations

import pytest

from gpo.data.example import Example
from gpo.evaluation.metrics import (
    BooleanScorer,
    ChoiceScorer,
    ExactScorer,
    LabelScorer,
    NumberScorer,
    RougeScorer,
    Rubric,
    Scorer,
)
from gpo.evaluation.metrics.paper import (
    PaperBooleanScorer,
    PaperBracketsScorer,
    PaperChoiceScorer,
    PaperNumberScorer,
    PaperTextScorer,
    PaperWordsScorer,
)
from gpo.evaluation.metrics.scorer import explanation, reading

CHOICE = Example("Which is a bird?\n(A) cat\n(B) dog\n(C) owl", ("(C)",))
VALID = Example("Is it valid?", ("valid",))
YES = Example("Is it so?", ("Yes",))
SUM = Example("6 + 9?", ("15",))
MOOD = Example("I like it.", ("positive",))
BRACKETS = Example("( [", ("] )",))
LABELS = LabelScorer(("positive", "negative"))


@pytest.mark.parametrize(
    ("scorer", "answer", "example", "explained"),
    [
        (ChoiceScorer(), "I cannot tell.", CHOICE, "no option such as (A) was found in the answer"),
        (ChoiceScorer(), "The answer is dog.", CHOICE, 'read as "(B)", but the right answer is "(C)"'),
        (PaperChoiceScorer(), "Option C", CHOICE, 'read as "option c", but the right answer is "(C)"'),
        (BooleanScorer(), "Perhaps.", VALID, "neither valid nor invalid was found in the answer"),
        (BooleanScorer(), "It is not valid.", VALID, 'read as "invalid", but the right answer is "valid"'),
        (BooleanScorer(), "no", YES, 'read as "No", but the right answer is "Yes"'),
        (PaperBooleanScorer(), "It is yes", YES, 'read as "it is yes", but the right answer is "Yes"'),
        (NumberScorer(), "Many.", SUM, "no number was found in the answer"),
        (NumberScorer(), "The answer is 12 (or 15).", SUM, 'read as "12", but the right answer is "15"'),
        (NumberScorer(), "2.5 million", SUM, 'read as "2500000", but the right answer is "15"'),
        (PaperNumberScorer(), "15 (from 3 boxes)", SUM, 'read as "3", but the right answer is "15"'),
        (PaperNumberScorer(), "Many.", SUM, "no number was found in the answer"),
        (LABELS, "Hm.", MOOD, "no label was found in the answer; the labels are positive, negative"),
        (LABELS, "Negative.", MOOD, 'read as "negative", but the right answer is "positive"'),
        (LABELS, "It is not positive.", MOOD, 'the answer denies "positive"'),
        (LABELS, "positive or negative", MOOD, "the answer names several labels: positive, negative"),
        (LabelScorer(tuple(map(str, range(21)))), "Hm.", Example("?", ("1",)), "no label was found in the answer"),
        (ExactScorer(), "I say 15!", SUM, "the right answer has other text around it; it must be alone"),
        (ExactScorer(), "I say 115!", SUM, "the answer does not equal the right one, word for word"),
        (
            PaperWordsScorer(),
            "15.",
            SUM,
            "the answer does not end with the right answer, word for word and without punctuation",
        ),
        (PaperBracketsScorer(), "( [ ] )", BRACKETS, 'read as "([])", but the right answer is "])"'),
        (PaperBracketsScorer(), "Hm.", BRACKETS, "no bracket was found in the answer"),
        (
            RougeScorer(),
            "the cat sat here",
            Example("?", ("a dog", "the cat sat")),
            "its similarity to the right answer is 86% (ROUGE-L); words: 4, in the right answer: 3",
        ),
        (
            PaperTextScorer(),
            "dogs",
            Example("?", ("the cat sat",)),
            "its similarity to the right answer is 0% (ROUGE-L); words: 1, in the right answer: 3",
        ),
        (Rubric("Be kind."), "Hm.", SUM, ""),
    ],
)
def test_a_scorer_says_what_it_read(scorer: Scorer | Rubric, answer: str, example: Example, explained: str) -> None:
    assert isinstance(scorer, Rubric) or scorer.score(answer, example) < 1
    assert explanation(scorer, answer, example) == explained


def test_long_readings_are_shortened() -> None:
    explained = explanation(PaperBooleanScorer(), "x" * 5000, YES)
    assert len(explained) < 130


def test_a_scorer_that_only_knows_whether_it_can_read_says_that() -> None:
    class Reading(ExactScorer):
        explain = None

        def can_read(self, answer: str, example: Example) -> bool:
            return answer == "15"

    assert explanation(Reading(), "15", SUM) == ""
    assert explanation(Reading(), "Hm.", SUM) == "nothing was found in the answer that could be scored"


@pytest.mark.parametrize(
    ("scorer", "answer", "target", "read"),
    [
        (ChoiceScorer(), "The answer is (B).", "(A)", "(B)"),
        (ChoiceScorer(), "b", "A", "B"),
        (ChoiceScorer(), "I cannot say.", "(A)", ""),
        (BooleanScorer(), "That is true.", "Yes", "Yes"),
        (BooleanScorer(), "it is not valid", "valid", "invalid"),
        (BooleanScorer(), "maybe", "Yes", ""),
        (LabelScorer(("Good", "Bad")), "It is bad.", "Good", "Bad"),
        (LabelScorer(("Good", "Bad")), "It is good, not bad.", "Good", ""),
        (LabelScorer(("Good", "Bad")), "good or bad", "Good", ""),
        (LabelScorer(("New York", "Rome")), "new-york", "New York", "New York"),
        (NumberScorer(), "7", "7", ""),
        (RougeScorer(), "A cat.", "A cat.", ""),
    ],
)
def test_what_is_read_is_written_like_the_target(scorer: Scorer, answer: str, target: str, read: str) -> None:
    example = Example("?", (target,))
    assert reading(scorer, answer, example) == read
    assert scorer.score(answer, example) == float(read == target) or not read
