"""The same answer in many forms: every scorer of the default parser reads it alike."""

from __future__ import annotations

import pytest

from gpo.data.example import Example
from gpo.evaluation.metrics import BooleanScorer, ChoiceScorer, ExactScorer, LabelScorer, NumberScorer

QUESTION = "Which animal barks or purrs?\nOptions:\n(A) cat\n(B) dog\n(C) bird"
OPTIONS = {"A": "cat", "B": "dog"}
CHOICES = (
    "{L}",
    "Ответ: {L}",
    '```json\n{{"answer": "{L}"}}\n```',
    "\\text{{{L}}}",
    "（{L}）",
    "Choose {L}",
    "I'd go with {L}.",
    "**{L}.** because",
    "{L}. {w}",
    "Option {L}.",
    "{L} is correct.",
    "The correct answer is {L}) {w}",
    "Antwort: {L}",
    "选{L}",
    "选择{L}",
    "正确答案是（{L}）",
    "答えは{L}です",
    "정답은 {L}입니다",
    "Resposta: {L}",
    '"{L}"',
    "Respuesta: {L}",
    "The answer: {L}",
    "Answer:{L}",
    "ANSWER: {L}",
    "Answer is: {L}",
    "It must be {L}",
    "I pick {L}!",
    "I would choose {L}",
    "The best choice would be {L}.",
    "$\\boxed{{({L})}}$",
    "\\boxed{{\\textbf{{{L}}}}}",
    "The answer is $\\boxed{{\\text{{{L}}}}}$.",
    "<answer>\n{L}\n</answer>",
    "<answer>({L})</answer> because",
    '{{"reasoning": "B or A?", "answer": "{L}"}}',
    "{L}.",
    "({L}",
    "{L})",
    "[{L}]",
    "option {L}",
    "Option ({L})",
    "{L} – {w}",
    "\u200b{L}",
    "**Final Answer:** {L}",
    "### Answer\n{L}",
    "Answer:\n\n{L}",
    "Therefore, {L}.",
    "So {L}.",
    "La respuesta correcta es {L}",
    "Die Antwort ist {L}.",
    "La risposta è {L}",
    "Réponse : {L}",
    "A resposta é {L}.",
    "Svar: {L}",
    "Answer - {L}",
    "Final: {L}",
    "My answer: {L}",
    "{w}",
    "the {w}",
    "It is the {w}.",
    "<answer>{w}</answer>",
    '{{"choice": "{L}"}}',
    '{{"option": "{L}", "confidence": 0.9}}',
    "Correct option: {L}",
    "{L}: {w}",
    "{L} ({w})",
    "Answer: '{L}'",
)


@pytest.mark.parametrize("letter", OPTIONS)
@pytest.mark.parametrize("form", CHOICES)
def test_a_choice_is_read_in_every_form_and_a_is_a_letter_like_b(form: str, letter: str) -> None:
    answer = form.format(L=letter, w=OPTIONS[letter])
    assert ChoiceScorer().score(answer, Example(QUESTION, (f"({letter})",))) == 1
    other = "B" if letter == "A" else "A"
    assert ChoiceScorer().score(answer, Example(QUESTION, (f"({other})",))) == 0


@pytest.mark.parametrize(
    "answer", ["I think so", "A or B", "I am not sure", "I do not know.", "a cat or a dog", "I cannot tell"]
)
def test_an_answer_that_settles_on_nothing_is_no_choice(answer: str) -> None:
    assert ChoiceScorer().score(answer, Example(QUESTION, ("(A)",))) == 0


@pytest.mark.parametrize(
    "answer", ["c", "C", "cow", "The cow.", "C. cow", "I think it is a cow", "Answer: cow", "Answer: I think it is C"]
)
@pytest.mark.parametrize(
    "listed",
    [
        "(A) cat\n(B) dog\n(C) cow",
        "A. cat\nB. dog\nC. cow",
        "A) cat\nB) dog\nC) cow",
        "a: cat\nb: dog\nc: cow",
        "A. cat B. dog C. cow",
    ],
)
def test_options_are_known_in_every_style(answer: str, listed: str) -> None:
    assert ChoiceScorer().score(answer, Example(f"Which animal?\n{listed}", ("C",))) == 1
    assert ChoiceScorer().score(answer, Example(f"Which animal?\n{listed}", ("B",))) == 0


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("1234", "1,234"),
        ("1234", "1 234"),
        ("1234567", "1.234.567"),
        ("1234567", "12,34,567"),
        ("1234.5", "1.234,5"),
        ("18", "18 eggs"),
        ("0.5", "½"),
        ("0.5", "1/2"),
        ("1.5", "1½"),
        ("18", "18个"),
        ("18", "١٨"),
        ("-5", "-5"),
        ("-5", "—5"),
        ("18", "=18"),
        ("18", "**18**"),
        ("18", "$18$"),
        ("18", "\\$18"),
        ("18", "18 dollars (18 USD)"),
        ("18", "(18)"),
        ("18", "The answer is 18."),
        ("18", "Answer: 18 (see step 2)"),
        ("18", '{"answer": 18}'),
        ("18", "```\n18\n```"),
        ("18", "<answer>18</answer>"),
        ("18", "Ответ: 18"),
        ("18", "La respuesta es 18"),
        ("3.5", "3,5"),
        ("1234", "1_234"),
        ("1234", "\\$1{,}234"),
        ("1000000", "1e6"),
        ("18", "18kg"),
        ("18", "€18"),
        ("18", "18€"),
        ("18", "~18"),
        ("18", "≈18"),
        ("5", "2x+1=11, x=5"),
        ("18", "18/1"),
        ("40", "40 %"),
        ("1234", "１，２３４"),
        ("8", "2³ = 8"),
        ("12", "3 dozen... = 12"),
        ("18", "#### 18"),
        ("20", "Total: 20 (10+10)"),
        ("1234", "1,234.00 USD"),
        ("1200", "1.200,00 €"),
        ("18", "eighteen (18)"),
        ("7", "7th"),
        ("9", "9."),
        ("100", "100,"),
        ("3", "1) 2 apples\n2) 1 more\nThe answer is 3"),
        ("18", "18 because 9*2=18"),
        ("1000", "10^3"),
        ("1000", "10³"),
        ("1000", "$10^{3}$"),
        ("1000", "The answer is 10^3 = 1000."),
        ("8", "The answer is 2^3 = 8."),
        ("0.001", "10⁻³"),
        ("1500", "1.5 × 10³"),
        ("1500", "1.5*10^3"),
        ("1500", "$1.5 \\times 10^{3}$"),
        ("-1500", "-1.5 x 10^3"),
        ("10^3", "1,000"),
        ("5000000", "5 million"),
        ("5000000", "The answer is $5 Million."),
        ("2500", "2.5k"),
        ("2500000", "2.5M"),
        ("1200000000", "€1.2bn"),
        ("5 million", "5,000,000"),
        ("5", "5 million"),
        ("5 million", "5"),
    ],
)
def test_a_number_is_read_in_every_form(target: str, answer: str) -> None:
    assert NumberScorer().score(answer, Example("How much?", (target,))) == 1


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("18", "19"),
        ("18", "180"),
        ("1234", "1.234"),
        ("5", "-5"),
        ("25", "5²"),
        ("3", "10^3"),
        ("1000", "1 km"),
        ("5000", "5 kg"),
        ("10", "10^3"),
        ("1000", "1/10^3"),
    ],
)
def test_another_number_is_wrong(target: str, answer: str) -> None:
    assert NumberScorer().score(answer, Example("How much?", (target,))) == 0


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("Paris", '"Paris"'),
        ("Paris", "«Paris»"),
        ("Paris", "`Paris`"),
        ("Paris", "Paris."),
        ("Paris", "The answer is Paris."),
        ("Paris", '{"answer":"Paris"}'),
        ("Paris", "Answer: Paris"),
        ("Paris", "```\nParis\n```"),
        ("it's", "it’s"),
        ("naïve", "naïve"),
        ("ＡＢＣ", "ABC"),
        ("Paris", "\\text{Paris}"),
        ("Paris", "Paris\u200b"),
        ("東京", "東京。"),
        ("München", "MÜNCHEN"),
        ("Paris", "Réponse : Paris"),
        ("a-b", "a—b"),
        ("5", "5"),
        ("well-known", "well‑known"),
        ("x^2", "x²"),
        ("Île", "ÎLE"),
        ("Paris", "<answer> Paris </answer>"),
    ],
)
def test_an_exact_answer_is_read_in_every_form(target: str, answer: str) -> None:
    assert ExactScorer().score(answer, Example("?", (target,))) == 1


@pytest.mark.parametrize(
    ("target", "answer"), [("5", "-5"), ("Paris", "Not Paris"), ("C", "C#"), ("Paris", "Paris or Lyon")]
)
def test_another_exact_answer_is_wrong(target: str, answer: str) -> None:
    assert ExactScorer().score(answer, Example("?", (target,))) == 0


SENTIMENT = ("positive", "negative", "neutral")
LANGUAGES = ("C", "C++", "C#", ".NET", "日本語", "中文", "Objective-C")
BITS = ("0", "1")
TOXICITY = ("toxic", "non-toxic")
PAIR = ("positive", "not positive")


@pytest.mark.parametrize(
    ("labels", "target", "answer", "right"),
    [
        (SENTIMENT, "positive", "Positive", True),
        (SENTIMENT, "positive", "**positive**", True),
        (SENTIMENT, "positive", "The sentiment is positive.", True),
        (SENTIMENT, "positive", '{"label": "positive"}', True),
        (SENTIMENT, "positive", "<answer>positive</answer>", True),
        (SENTIMENT, "positive", "\\boxed{positive}", True),
        (SENTIMENT, "positive", "答案是positive", True),
        (SENTIMENT, "positive", "Sentiment: positive!", True),
        (SENTIMENT, "positive", "POSITIVE", True),
        (SENTIMENT, "positive", "not positive", False),
        (SENTIMENT, "positive", "negative", False),
        (SENTIMENT, "positive", "positive or negative", False),
        (SENTIMENT, "positive", "", False),
        (SENTIMENT, "positive", "positively", False),
        (SENTIMENT, "positive", "It is neither positive nor negative.", False),
        (SENTIMENT, "positive", "isn't positive", False),
        (LANGUAGES, "C", "I use C.", True),
        (LANGUAGES, "C++", "It is C++.", True),
        (LANGUAGES, "C#", "C#!", True),
        (LANGUAGES, ".NET", ".NET", True),
        (LANGUAGES, "日本語", "これは日本語です", True),
        (LANGUAGES, "中文", "中文。", True),
        (LANGUAGES, "Objective-C", "Objective-C", True),
        (LANGUAGES, "C", "C, of course", True),
        (LANGUAGES, "C", "C++", False),
        (LANGUAGES, "C", "C#", False),
        (LANGUAGES, "C++", "C", False),
        (LANGUAGES, "C", "Objective-C", False),
        (LANGUAGES, ".NET", "NET", False),
        (BITS, "1", "1", True),
        (BITS, "1", "Label: 1", True),
        (BITS, "1", "1.", True),
        (BITS, "1", "1.0", True),
        (BITS, "0", "0.0", True),
        (BITS, "1.0", "1", True),
        (BITS, "1", "10", False),
        (BITS, "1", "0", False),
        (BITS, "1", "1.5", False),
        (BITS, "1", "-1", False),
        (PAIR, "not positive", "It is not positive.", True),
        (PAIR, "not positive", "Not a positive review", True),
        (PAIR, "not positive", "NOT  POSITIVE", True),
        (PAIR, "not positive", "not-positive", True),
        (PAIR, "positive", "It is not positive", False),
        (TOXICITY, "non-toxic", "Non-toxic", True),
        (TOXICITY, "toxic", "non-toxic", False),
        (TOXICITY, "non-toxic", "nontoxic", True),
    ],
)
def test_a_label_is_read_in_every_form(labels: tuple[str, ...], target: str, answer: str, right: bool) -> None:
    assert LabelScorer(labels).score(answer, Example("?", (target,))) == right


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("Yes", "\\boxed{Yes}"),
        ("Yes", '{"answer": true}'),
        ("No", "答案是No"),
        ("Yes", "Ｙｅｓ"),
        ("valid", '{"answer": "valid"}'),
    ],
)
def test_a_verdict_is_read_in_every_form(target: str, answer: str) -> None:
    assert BooleanScorer().score(answer, Example("?", (target,))) == 1


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ('{"answer": "B", "confidence": {"value": 0.9}}', "B"),
        ("The answer is the dog, not the cat.", "B"),
        ("(B) fits. (A) is wrong.", "B"),
    ],
)
def test_what_an_answer_rejects_or_adds_does_not_count(answer: str, letter: str) -> None:
    assert ChoiceScorer().score(answer, Example(QUESTION, (f"({letter})",))) == 1


def test_an_object_in_the_middle_does_not_replace_the_conclusion() -> None:
    assert NumberScorer().score('I first wrote {"value": 3}. The answer is 42.', Example("?", ("42",))) == 1


@pytest.mark.parametrize(
    "piece",
    [
        "``` ",
        "<answer>",
        "neither a ",
        "neither yes nor a ",
        "neither a nor no, ",
        "1 x 10^",
        '{"a":',
        "{",
        "\\boxed{",
        "```json\n{ ",
    ],
)
def test_hostile_answers_take_linear_time(piece: str) -> None:
    for scorer in (ChoiceScorer(), NumberScorer(), ExactScorer(), BooleanScorer(), LabelScorer(("yes", "no"))):
        scorer.score(piece * (50_000 // len(piece)), Example("?", ("yes",)))


LABELS = LabelScorer(("positive", "negative", "neutral"))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Neither positive nor negative.", None),
        ("It is neither clearly positive nor clearly negative", None),
        ("**Neither** positive, negative nor neutral", None),
        ("Neither positive nor negative, so neutral.", "neutral"),
        ("Neutral: it is neither positive nor negative.", "neutral"),
        ("Neither the food nor the staff was good: negative", "negative"),
        ("Neither helpful nor positive. Negative.", "negative"),
    ],
)
def test_neither_nor_names_no_label(answer: str, label: str | None) -> None:
    assert LABELS.can_read(answer, Example("?", ("neutral",))) is (label is not None)
    for target in LABELS.labels:
        assert LABELS.score(answer, Example("?", (target,))) == (target == label)


@pytest.mark.parametrize("answer", ["neither", "Neither.", "It is neither yes nor no, so neither"])
def test_a_label_neither_is_still_named(answer: str) -> None:
    scorer = LabelScorer(("entailed", "contradicted", "neither"))
    assert scorer.score(answer, Example("?", ("neither",))) == 1


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("Neither (A) nor (B).", None),
        ("Neither A nor B", None),
        ("I would choose neither option A nor option B.", None),
        ("Neither cat nor dog.", None),
        ("Neither (A) nor (B) purrs, so (C).", "C"),
        ("Neither the cat nor the dog: bird", "C"),
        ("The answer is (C), since neither (A) nor (B) flies.", "C"),
    ],
)
def test_neither_nor_chooses_no_option(answer: str, letter: str | None) -> None:
    for target in "ABC":
        assert ChoiceScorer().score(answer, Example(QUESTION, (f"({target})",))) == (target == letter)


@pytest.mark.parametrize("answer", ["Neither A nor B", "(C) Neither A nor B", "C"])
def test_neither_nor_as_an_option_can_be_chosen(answer: str) -> None:
    question = "Who is meant?\n(A) the cook\n(B) the guest\n(C) Neither A nor B"
    assert ChoiceScorer().score(answer, Example(question, ("(C)",))) == 1


@pytest.mark.parametrize(
    ("answer", "yes", "no"),
    [
        ("Neither yes nor no.", 0, 0),
        ("It is neither true nor false", 0, 0),
        ("Neither true nor correct.", 0, 1),
        ("Neither yes nor no can be proved, but I say: yes", 1, 0),
    ],
)
def test_neither_nor_is_no_verdict(answer: str, yes: float, no: float) -> None:
    assert BooleanScorer().score(answer, Example("?", ("yes",))) == yes
    assert BooleanScorer().score(answer, Example("?", ("no",))) == no
