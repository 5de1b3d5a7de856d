from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.data.example import Example
from gpo.evaluation.metrics import (
    BooleanScorer,
    ChoiceScorer,
    ExactScorer,
    LabelScorer,
    NumberScorer,
    RougeScorer,
)
from gpo.evaluation.metrics.choice import options
from gpo.evaluation.metrics.text import rouge_l
from gpo.testing.contracts import ScorerContract

QUESTION = "Which animal barks?\nOptions:\n(A) A cat\n(B) The dog\n(C) A hot dog\n(D) 15\n(E) 1"


class TestChoice(ScorerContract):
    scorer = ChoiceScorer()
    example = Example(QUESTION, ("(B)", "C"))


class TestBoolean(ScorerContract):
    scorer = BooleanScorer()
    example = Example("Is 7 a prime?", ("Yes",))


class TestNumber(ScorerContract):
    scorer = NumberScorer()
    example = Example("1 + 1?", ("2", "2.0", "-1,234.5", "1/3"))


class TestExact(ScorerContract):
    scorer = ExactScorer()
    example = Example("Close it: ( [", ("] )", "C#", "snake_case", "-5", "** **"))


class TestLabel(ScorerContract):
    scorer = LabelScorer(("billing", "technical", "new york", "new york city"))
    example = Example("My invoice is wrong.", ("billing", "new york", "new york city"))


class TestRouge(ScorerContract):
    scorer = RougeScorer()
    example = Example("John | lives in | Paris", ("John lives in Paris.", "Paris is where John lives."))


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(B)", "B"),
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("[b]", "B"),
        ("**B**", "B"),
        ("**(B) The dog**", "B"),
        ("B: The dog", "B"),
        ("Option A", "A"),
        ("Option B", "B"),
        ("The answer is B.", "B"),
        ("The answer is A because it purrs.", "A"),
        ("The answer is: (b)", "B"),
        ("**Answer:** B", "B"),
        ("Answer: **(B)**", "B"),
        ("The correct option is (B), since (A) purrs.", "B"),
        ("The answer should be (B).", "B"),
        ("$\\boxed{B}$", "B"),
        ("The answer is \\boxed{(B)}.", "B"),
        ("(A) purrs. (C) is food. So the answer is (B). Not (D) either.", "B"),
        ("First I thought the answer is (A). But no: the answer is (B).", "B"),
        ("The answer is not (A) but (B).", "B"),
        ("not (A) but (B)", "B"),
        ("It is (B), not (C).", "B"),
        ("The answer isn't (A). It is (B).", "B"),
        ("I would choose (B) rather than option C.", "B"),
        ("(B) is correct. (A) and (C) are wrong.", "B"),
        ("B is the best answer, as A and D make no sense.", "B"),
        ("(B)\n\nExplanation: (A) purrs and (C) is food.", "B"),
        ("B. The dog\n\nA cat purrs, and (C) is food.", "B"),
        ("(A) purrs; (C) is food; that leaves (B)", "B"),
        ("(D) 15\n\n(A) and (B) are no numbers.", "D"),
        ("b\n\nBecause (A) and (C) do not bark.", "B"),
        ("The dog\n\n(A) and (C) do not bark.", "B"),
        ("The dog", "B"),
        ("It must be the dog.", "B"),
        ("A hot dog", "C"),
        ("The answer is a cat", "A"),
        ("15", "D"),
        ("The answer is 1.", "E"),
        ("I think B", "B"),
        ("A dog barks.", None),
        ("the dog or a cat", None),
        ("I don't know.", None),
        ("", None),
        ("(Z)", None),
        ("I", None),
    ],
)
def test_choice(answer: str, letter: str | None) -> None:
    read = [one for one in "ABCDE" if ChoiceScorer().score(answer, Example(QUESTION, (f"({one})",)))]
    assert read == ([] if letter is None else [letter])


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("So, (B) and (C) are both plausible.", False),
        ("The answer is (B) or (C).", False),
        ("The answer is either (A), (B), or option (C)", False),
        ("(B)/(C)", False),
        ("It is (A) or (B), and I go with (B).", True),
        ("So, (A) and (C) are wrong. The answer is (B).", True),
        ("(A) and (C) are cats, so (B)", True),
    ],
)
def test_letters_joined_by_and_or_or_are_not_an_answer(answer: str, right: bool) -> None:
    assert ChoiceScorer().score(answer, Example(QUESTION, ("(B)",))) == right
    assert ChoiceScorer().score(answer, Example("?", ("(B)",))) == right


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        (QUESTION, "ABCDE"),
        ("(A) x\n  (B)  y  \n(C)", "ABC"),
        ("Pick:\n(A) cat (B) dog (C) bird", "ABC"),
        ("Pick:\n(A) cat (B) dog\n(C) bird (D) fish", "ABCD"),
        ("Pick:\nA. cat\nB. dog", "AB"),
        ("Pick: a) cat b) dog c) cow", "ABC"),
        ("Pick:\na: cat\nb: dog", "AB"),
        ("A. B. Smith wrote it.", ""),
        ("What does (B) mean?", ""),
        ("", ""),
    ],
)
def test_options_are_those_listed_from_a_on_without_a_gap(text: str, letters: str) -> None:
    assert "".join(options(Example(text, ("(A)",)))) == letters


@pytest.mark.parametrize(
    "answer", ["(C) (A) and (B)", "C. (A) and (B)", "(A) and (B)", "The answer is C, (A) and (B)."]
)
def test_an_option_may_name_others(answer: str) -> None:
    assert ChoiceScorer().score(answer, Example("?\n(A) 1\n(B) 2\n(C) (A) and (B)", ("(C)",))) == 1


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("Yes", "Yes", True),
        ("yes.", "Yes", True),
        ("**No**", "No", True),
        ("True", "Yes", True),
        ("Yes, because no other number divides it.", "Yes", True),
        ("No\n\nYes would need another reason.", "No", True),
        ("The answer is no.", "No", True),
        ("Yes and no; the final answer is **No**", "No", True),
        ("So, yes.", "Yes", True),
        ("Valid premises do not help. Therefore, the argument is invalid.", "invalid", True),
        ("The argument is not valid.", "invalid", True),
        ("The argument isn't valid.", "invalid", True),
        ("The argument isn’t deductively valid.", "invalid", True),
        ("This is not a logically valid argument.", "invalid", True),
        ("It is not invalid.", "valid", True),
        ("It is valid, since there is no counterexample.", "valid", True),
        ("The sentence is implausible.", "no", True),
        ("The sentence is plausible.", "yes", True),
        ("No, it is not true.", "No", True),
        ("I am not sure. Yes", "Yes", True),
        ("I don't know.", "No", False),
        ("Nobody noticed the yesterday.", "No", False),
        ("", "No", False),
        ("invalid", "valid", False),
    ],
)
def test_boolean(answer: str, target: str, right: bool) -> None:
    assert BooleanScorer().score(answer, Example("?", (target,))) == right
    other = {"Yes": "No", "No": "Yes", "yes": "no", "no": "yes", "valid": "invalid", "invalid": "valid"}[target]
    assert not (right and BooleanScorer().score(answer, Example("?", (other,))))


@pytest.mark.parametrize(
    ("target", "pair"),
    [
        ("Yes", "Yes or No"),
        ("no", "yes or no"),
        ("invalid", "valid or invalid"),
        ("False", "True or False"),
        ("?", "yes or no"),
    ],
)
def test_boolean_asks_for_the_pair_of_its_target(target: str, pair: str) -> None:
    assert BooleanScorer().follow_up(Example("?", (target,))).endswith(f": {pair}.")


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("18", 18),
        ("18.", 18),
        ("-25", -25),
        ("−25", -25),
        ("**42**", 42),
        ("x = 5", 5),
        ("x=-5", -5),
        ("$1,234.50", 1234.5),
        ("-$5", -5),
        ("$-5", -5),
        ("€ 7", 7),
        ("1,234,567 people", 1234567),
        ("1/2", 0.5),
        ("\\boxed{\\frac{3}{4}}", 0.75),
        ("1e3", 1000),
        (".5", 0.5),
        ("5%", 5),
        ("18 dollars", 18),
        ("She has 3 + 4 = 7 apples", 7),
        ("3*4=12", 12),
        ("10 - 4 = 6", 6),
        ("- 5", 5),
        ("Total cost - 25", 25),
        ("3 - 5 = -2", -2),
        ("between 10-20", 20),
        ("#### 42", 42),
        ("So 3 * 14 = 42.\n#### 42\nThat is 6 weeks.", 42),
        ("The answer is 18, since 9 * 2 = 18 and 3 > 2.", 18),
        ("The answer is 12 - 4 = 8.", 8),
        ("The final answer is: $12 - $4 = $8", 8),
        ("The answer is x = 5.", 5),
        ("**Answer:** 1,000", 1000),
        ("Answer:\n\n- 5 apples", 5),
        ("The answer is $\\boxed{-3}$.", -3),
        ("The answer is 4. No, the answer is 5.", 5),
        ("Therefore, the 3 friends have 12 apples.", 12),
        ("So, she sold 5 of the 12 and kept 7.", 7),
        ("Step 1: 4\nStep 2: 5", 5),
        ("The answer is unknown; I got 7", 7),
        ("٣", 3),
    ],
)
def test_number(answer: str, number: float) -> None:
    assert NumberScorer().score(answer, Example("?", (str(number),))) == 1
    assert NumberScorer().score(answer, Example("?", (str(number + 1),))) == 0


@pytest.mark.parametrize("answer", ["", "none", "v2.0", "A4", "1/0", "eighteen"])
def test_an_answer_without_a_number_is_wrong(answer: str) -> None:
    assert not any(NumberScorer().score(answer, Example("?", (target,))) for target in ("0", "1", "2", "4", "18"))


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("0.3333333", "1/3", True),
        ("0.33", "1/3", False),
        ("1000000", "1,000,000", True),
        ("30000001", "30000000", False),
        ("1e-12", "0", True),
    ],
)
def test_numbers_are_equal_to_six_digits(answer: str, target: str, right: bool) -> None:
    assert NumberScorer().score(answer, Example("?", (target,))) == right


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("Paris", "Paris", True),
        ("  paris. ", "Paris", True),
        ("**Paris**", "Paris", True),
        ('"Paris"', "Paris", True),
        ("New\n York", "New York", True),
        ("The answer is Paris.", "Paris", True),
        ("The answer is Paris.\n\nIt is the capital.", "Paris", True),
        ("Paris\n\nIt is the capital of France.", "Paris", True),
        ("France has a capital.\n\nParis", "Paris", True),
        ("Therefore, Paris.", "Paris", True),
        ("It is Paris, I think", "Paris", False),
        ("Not Paris", "Paris", False),
        ("Paris and London", "Paris", False),
        ("", "Paris", False),
        ("...", "Paris", False),
        ("] )", "] )", True),
        ("The answer is ] )", "] )", True),
        (") ]", "] )", False),
        ("5", "-5", False),
        ("C", "C#", False),
        ("C++", "C", False),
        ("The label is snake_case.", "snake_case", True),
        ("- a\n- b", "a b", True),
        ("a, b", "a b", True),
        ("1. a\n2. b", "a b", True),
        ("Here is the list:\n1. a\n2. b", "a b", True),
        ("b, a", "a b", False),
        ("a, b, c", "a b", False),
        ("a, b", "a, b", True),
        ("we close with ] ).", "] )", True),
        ("Sure: ])", "] )", True),
        ("`] )`", "] )", True),
        ("we close with ] ) ].", "] )", False),
        ("( [ ] )", "] )", False),
        ("", "] )", False),
        ("b", "a", False),
    ],
)
def test_exact(answer: str, target: str, right: bool) -> None:
    assert ExactScorer().score(answer, Example("?", (target,))) == right


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("billing", "billing", True),
        ("It is **Billing**.", "billing", True),
        ("_billing_", "billing", True),
        ("billing, billing and billing", "billing", True),
        ("billing or shipping", "billing", False),
        ("not billing but shipping", "shipping", False),
        ("billings", "billing", False),
        ("something else", "billing", False),
        ("She lives in New York City", "new york city", True),
        ("She lives in New York City", "new york", False),
        ("She lives in New York", "new york", True),
        ("c++", "c++", True),
        ("c", "c", True),
        ("c++", "c", False),
        ("order_status", "order_status", True),
    ],
)
def test_label(answer: str, target: str, right: bool) -> None:
    labels = ("billing", "Shipping", "new york", "new york city", "c++", "c", "order_status")
    assert LabelScorer(labels).score(answer, Example("?", (target,))) == right


@pytest.mark.parametrize(("num_labels", "named"), [(20, True), (21, False)])
def test_label_lists_up_to_20_labels(num_labels: int, named: bool) -> None:
    labels = tuple(f"label {number}" for number in range(num_labels))
    assert (", ".join(labels) in LabelScorer(labels).follow_up(Example("?", ("label 0",)))) == named


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 1.0),
        # Lin (2004), section 3.1: "police killed the gunman" against two candidates with LCS 3 and 2.
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("the gunman police killed", "police killed the gunman", 0.5),
        ("The CAT, sat!", "the cat sat", 1.0),
        ("cat", "the cat sat", 2 * 1 / (1 + 3)),
        ("a b c d", "a x b y", 0.5),
        ("", "the cat", 0.0),
        ("...", "the cat", 0.0),
        ("the cat", "", 0.0),
        ("dog", "cat", 0.0),
    ],
)
def test_rouge_l_of_known_texts(text: str, reference: str, value: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(value)


words = st.lists(st.sampled_from("abcde"), max_size=10).map(" ".join)


@given(words, words)
def test_rouge_l_is_symmetric_and_in_range(one: str, other: str) -> None:
    assert rouge_l(one, other) == rouge_l(other, one)
    assert 0 <= rouge_l(one, other) <= 1
    assert (rouge_l(one, other) == 1) == (one == other != "")


def test_rouge_uses_the_nearest_reference() -> None:
    example = Example("?", ("nothing alike", "police killed the gunman", "police"))
    assert RougeScorer().score("police kill the gunman", example) == pytest.approx(0.75)
