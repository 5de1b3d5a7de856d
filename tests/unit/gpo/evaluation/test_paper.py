from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.data.example import Example
from gpo.errors import ConfigError
from gpo.evaluation.metrics.paper import (
    DATASETS,
    PARSERS,
    PaperBooleanScorer,
    PaperBracketsScorer,
    PaperChoiceScorer,
    PaperNumberScorer,
    PaperTextScorer,
    PaperWordsScorer,
    benchmark_scorer,
    family_of,
)
from gpo.testing.contracts import ScorerContract

VERDICTS = os.environ.get("GPO_VERDICTS")


class TestChoice(ScorerContract):
    scorer = PaperChoiceScorer()
    example = Example("Which animal barks?\n(A) A cat\n(B) The dog", ("(B)", "A", "The dog, of course"))


class TestBoolean(ScorerContract):
    scorer = PaperBooleanScorer()
    example = Example("Is 7 a prime?", ("Yes",))


class TestNumber(ScorerContract):
    scorer = PaperNumberScorer()
    example = Example("1 + 1?", ("2", "2.0", "-1,234.5"))


class TestWords(ScorerContract):
    scorer = PaperWordsScorer()
    example = Example("Sort: pear apple", ("apple pear",))


class TestBrackets(ScorerContract):
    scorer = PaperBracketsScorer()
    example = Example("Close it: ( [", ("] )", "> > >"))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("(B)", True),
        ("(b)", True),
        ("B", True),
        ("b.", True),
        ("**(B)**", True),
        ("Answer: (B)", True),
        ("THE ANSWER IS: (b)", True),
        ("The answer is B.", True),
        ("(B) is the correct answer.", True),
        ("(C) at first, but the answer is (B), not (A)", True),
        ("The answer is (A). No, the answer is (B).", True),
        ("(B) and (C) are both plausible", True),
        ("(C) and (B) are both plausible", False),
        ("Option B", False),
        ("[B]", True),
        ("(A)", False),
        ("The answer is (A), not (B)", False),
        ("B is what I think", False),
        ("", False),
        ("The answer is", False),
    ],
)
def test_choice(answer: str, right: bool) -> None:
    assert PaperChoiceScorer().score(answer, Example("?", ("(B)",))) == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("No", True),
        ("NO", True),
        ("no!", True),
        ('"No"', True),
        ("**No**", True),
        ("The answer is No.", True),
        ("So the answer is: no", True),
        ("Answer: No", False),
        ("It is No", False),
        ("No, because of that", False),
        ("No\nThat is why", False),
        ("Yes", False),
        ("false", False),
        ("", False),
        ("...", False),
    ],
)
def test_boolean(answer: str, right: bool) -> None:
    assert PaperBooleanScorer().score(answer, Example("?", ("No",))) == right


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("18", "18"),
        ("18.", "18"),
        ("18.0", "18"),
        ("18.00", "18.0"),
        ("-25 dollars", "-25"),
        ("$11,050", "11050"),
        ("30%", "30"),
        ("**42**", "42"),
        ("#### 42", "42"),
        ("3 + 4 = 7", "7"),
        ("10-4", "4"),
        ("12, 30, -5", "-5"),
        ("The answer is 18, from 3 boxes", "3"),
    ],
)
def test_number(answer: str, number: str) -> None:
    assert PaperNumberScorer().score(answer, Example("?", (number,))) == 1
    assert PaperNumberScorer().score(answer, Example("?", (number + "1",))) == 0


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("apple fig pear", True),
        ("apple\nfig\n pear", True),
        ("Apple Fig Pear", True),
        ("The answer is apple fig pear", True),
        ("Sure! Here:\napple fig pear", True),
        ("apple fig pear.", False),
        ("apple, fig, pear", False),
        ("- apple\n- fig\n- pear", False),
        ("apple fig pear plum", False),
        ("pineapple fig pear", False),
        ("pear fig apple", False),
        ("fig pear", False),
        ("", False),
    ],
)
def test_words(answer: str, right: bool) -> None:
    assert PaperWordsScorer().score(answer, Example("?", ("apple fig pear",))) == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("] )", True),
        ("])", True),
        ("`] )`", True),
        ("Sure: ] )", True),
        ("we close with ] ).", True),
        ("] ) ]", False),
        ("( [ ] )", False),
        (") ]", False),
        ("", False),
        ("none", False),
    ],
)
def test_brackets(answer: str, right: bool) -> None:
    assert PaperBracketsScorer().score(answer, Example("?", ("] )",))) == right


@pytest.mark.parametrize(
    ("answer", "references", "value"),
    [
        ("a cat sat", ("a cat sat",), 1),
        ("a cat sat", ("a cat sat", "no dog ran"), 1 / 2),
        ("a cat sat", ("a cat ran off",), 2 * 2 / (3 + 4)),
        ("A CAT", ("a cat",), 0),
        ("a cat, sat", ("a cat sat",), 2 / 3),
        ("a cat.sat", ("sat. a cat.",), 1),
        ("a a a", ("a",), 1),
        ("c b a", ("a b c",), 1 / 3),
        ("", ("a",), 0),
        (". .", ("a",), 0),
        ("a", (".",), 0),
    ],
)
def test_text(answer: str, references: tuple[str, ...], value: float) -> None:
    assert PaperTextScorer().score(answer, Example("?", references)) == pytest.approx(value, abs=1e-7)


@given(st.text("ab. \n"), st.text("abc. \n"))
def test_text_stays_below_1_and_is_positive_in_both_directions(text: str, other: str) -> None:
    score = PaperTextScorer().score(text, Example("?", (other,)))
    assert 0 <= score < 1
    assert (score > 0) == (PaperTextScorer().score(other, Example("?", (text,))) > 0)


@pytest.mark.parametrize(
    ("dataset", "task", "family"),
    [
        ("bbh", "snarks", "choice"),
        ("bbh", "navigate", "boolean"),
        ("bbh", "object_counting", "number"),
        ("bbh", "word_sorting", "words"),
        ("bbh", "dyck_languages", "brackets"),
        ("mmlu", "any_subject", "choice"),
        ("wsc", "wsc", "choice"),
        ("gsm8k", "gsm8k", "number"),
        ("webnlg", "webnlg", "text"),
    ],
)
def test_both_parsers_know_the_family_of_each_task(dataset: str, task: str, family: str) -> None:
    assert family_of(dataset, task, where="here") == family
    assert dataset in DATASETS
    for parser in PARSERS:
        scorer = benchmark_scorer(parser, dataset, task, where="here")
        assert type(scorer).__name__.startswith("Paper") == (parser == "paper")


@pytest.mark.parametrize(
    ("parser", "dataset", "task", "words"),
    [
        ("papers", "bbh", "snarks", ("--parser", "'papers'", "default, paper")),
        ("paper", "imdb", "imdb", ("here", "'imdb'", "mmlu")),
        ("paper", "bbh", "snark", ("here", "'snark'", "snarks")),
    ],
)
def test_an_unknown_parser_dataset_or_task_is_refused(
    parser: str, dataset: str, task: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refused:
        benchmark_scorer(parser, dataset, task, where="here")
    assert all(word in str(refused.value) for word in words)


@pytest.mark.skipif(VERDICTS is None, reason="GPO_VERDICTS names no file")
def test_the_published_verdicts_are_reproduced() -> None:
    judged, agreed = defaultdict[str, int](int), defaultdict[str, int](int)
    for line in Path(VERDICTS or "").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        targets = row["target"] if isinstance(row["target"], list) else [str(row["target"])]
        family = family_of(row["dataset"], row["task"], where="here")
        scorer = benchmark_scorer("paper", row["dataset"], row["task"], where="here")
        difference = abs(scorer.score(row["answer"], Example("", tuple(targets))) - row["reference_score"])
        for group in (family, f"{row['dataset']}/{row['task']}"):
            judged[group] += 1
            agreed[group] += difference <= (0.02 if family == "text" else 0)
    assert {group: agreed[group] / judged[group] for group in judged if agreed[group] < 0.99 * judged[group]} == {}
