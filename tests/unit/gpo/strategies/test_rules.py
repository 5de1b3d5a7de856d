"""The rules that new prompts must keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice

import pytest

from gpo.data.constraints import LANGUAGE_CODES, Constraints
from gpo.data.example import Example
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import Completion, Sampling, Usage
from gpo.prompt import Prompt, joined_parts
from gpo.strategies.demonstrations import DemonstrationMetaPrompt
from gpo.strategies.proposer import SamplingProposer, parse_reply
from gpo.strategies.rules import Rules
from gpo.testing.fakes import FakeModel
from gpo.testing.samples import candidate
from gpo.trajectory import Direction

TRAIN = (
    Example("The shop sent me two left shoes and no receipt.", ("complaint",)),
    Example("A lovely bag.", ("praise",)),
    Example("Where can I find the invoice of my last order?", ("a question about invoices",)),
    Example("My parcel was wet when the postman brought it on Monday.", ("complaint",)),
    Example("Thanks to your driver, who carried everything upstairs.", ("praise",)),
    Example("How long does a refund take with a credit card?", ("question",)),
)
INITIAL = Prompt("Sort the message. Reply with JSON.")


def parsed(text: str) -> str:
    return parse_reply(Completion(text=text, usage=Usage())).text


@pytest.mark.parametrize(
    ("constraints", "text", "broken"),
    [
        (Constraints(must_keep=("JSON",)), "Reply with JSON.", None),
        (Constraints(must_keep=("JSON",)), "Reply with json.", "must_keep"),
        (Constraints(must_keep=("one of: a, b",)), "Name one\n of:  a, b", None),
        (Constraints(max_words=3), "One two three", None),
        (Constraints(max_words=3), "One two three four", "max_words"),
        (Constraints(max_words=1), "One {{ two words }} three", "max_words"),
        (Constraints(forbid=("art",)), "Start with the article.", None),
        (Constraints(forbid=("art",)), "Name the ART.", "forbid"),
        (Constraints(forbid=("do not",)), "Do\nnot guess.", "forbid"),
        (Constraints(forbid=("**",)), "Be **brief**.", "forbid"),
        (Constraints(forbid=("don't",)), "Don’t guess.", "forbid"),
        (Constraints(forbid=("café",)), "Cafe\u0301 or bar?", "forbid"),
        (Constraints(forbid=("AI",)), "As an A\u200bI, sort it.", "forbid"),
        (Constraints(forbid=("step by step",)), "Think step-by-step.", "forbid"),
        (Constraints(must_keep=("don't",)), "Don't, I said: don’t.", None),
        (Constraints(forbid=("état",)), "Nomme l'ÉTAT.", "forbid"),
        (Constraints(language="en"), "Name the topic of the text in one word.", None),
        (Constraints(language="en"), "Nenne das Thema des Textes in einem Wort.", "language"),
        (Constraints(language="de"), "Nenne das Thema des Textes in einem Wort.", None),
        (Constraints(language="de"), "Name the topic of the text in one word.", "language"),
        (Constraints(language="en"), "JSON!", None),
        (Constraints(language="da"), "Er dette positivt eller negativt?", None),
        (Constraints(language="ja"), "分類", None),
        (Constraints(language="en"), "文章的主题是什么？", "language"),
        (Constraints(language="zh"), "文章的主题是什么？", None),
    ],
)
def test_a_constraint_is_checked(constraints: Constraints, text: str, broken: str | None) -> None:
    found = constraints.broken(Prompt(text))
    assert (found and found[0]) == broken


def test_the_message_says_how_a_constraint_is_broken() -> None:
    found = Constraints(max_words=2).broken(Prompt("One two three"))
    assert found == ("max_words", "has 3 words, more than 2")


def test_every_language_that_can_be_asked_for_is_detected() -> None:
    assert {"en", "de", "fr", "es", "zh", "ja"} <= {*LANGUAGE_CODES}
    for code in LANGUAGE_CODES:
        Constraints(language=code).broken(Prompt("Name the topic of the text."))


@pytest.mark.parametrize(
    "text",
    [
        "Sort messages such as: the shop sent me two LEFT shoes, and so on.",
        'Is "A lovely bag." praise?',
    ],
)
def test_a_prompt_that_copies_an_example_is_dropped(text: str) -> None:
    assert Rules(INITIAL, guarded=TRAIN).broken(Prompt(text)) == "copied_example"
    assert Rules(INITIAL).broken(Prompt(text)) is None


def test_labels_of_several_words_may_be_named() -> None:
    labels = ("card not working", "cash withdrawal charge", "exchange rate for cards")
    train = tuple(Example(f"Ticket {number}", (label,)) for label in labels for number in range(2))
    assert Rules(INITIAL, guarded=train).broken(Prompt(f"Which one is it: {', '.join(labels)}?")) is None


def test_the_values_of_placeholders_are_guarded() -> None:
    example = Example("name: Ann\ntext: my parcel is lost", ("a",), (("{{ text }}", "my parcel is lost"),))
    text = "Sort mails such as: my parcel is lost."
    assert Rules(INITIAL, guarded=(example,)).broken(Prompt(text)) == "copied_example"


def test_placeholders_do_not_count_as_words() -> None:
    prompt = Prompt("[[system]] One two [[user]] {{ a long name }} three")
    assert Constraints(max_words=3).broken(prompt) is None
    assert Constraints(max_words=2).broken(prompt) == ("max_words", "has 3 words, more than 2")


def test_each_prompt_of_a_program_keeps_its_placeholders() -> None:
    plan, answer = "Plan for {{ question }} with {{notes}}.", "Answer from {{ passage }}."
    rules = Rules(Prompt(joined_parts({"plan": plan, "answer": answer})), is_program=True)

    def broken(**changed: str) -> str | None:
        return rules.broken(Prompt(joined_parts({"plan": plan, "answer": answer, **changed})))

    assert broken(plan="With {{ notes }}: a plan for {{question}}?") is None
    assert broken(plan="Plan for {{ question }}.") == "placeholders"
    assert broken(answer="Answer {{ question }} from {{ passage }}.") == "placeholders"
    assert broken(plan=answer, answer=plan) == "placeholders"
    assert broken(answer="{% if x %}Answer from {{ passage }}.{% endif %}") == "placeholders"
    (sentence,) = rules.of("plan").sentences
    assert sentence.endswith(": {{ question }} {{ notes }}.")


@pytest.mark.parametrize("text", ["Answer.", "Write {{{ x }} }} or {% if x %}.", "Reply as {{name}: value}}."])
def test_double_braces_that_are_no_placeholders_of_a_program_are_text(text: str) -> None:
    rules = Rules(Prompt(text), is_program=True)
    assert rules.broken(Prompt("Something {{ else }}.")) is None
    assert rules.sentences == ()


@pytest.mark.parametrize("text", ["Is it a complaint, praise or a question?", "The shop sent me. Sort it. A bag."])
def test_labels_and_short_parts_of_examples_may_be_named(text: str) -> None:
    assert Rules(INITIAL, guarded=TRAIN).broken(Prompt(text)) is None


def test_words_of_the_initial_prompt_and_of_the_task_may_be_used() -> None:
    text = "The shop sent me two left shoes. Sort it."
    assert Rules(Prompt("Like: the shop sent me two left shoes!"), guarded=TRAIN).broken(Prompt(text)) is None
    asked = "If you follow these instructions, do you return to the start?"
    shared = tuple(Example(f"{asked} Take {steps} steps.", ("Yes",)) for steps in range(10))
    assert Rules(INITIAL, guarded=shared).broken(Prompt(f"Think. {asked}")) is None


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        ("<START>Prompt: Which city is it?\n\nScore: 50.5<END>", "Which city is it?"),
        ("<START>New prompt: Which city is it?<END>", "Which city is it?"),
        ('<START><prompt accuracy="80">Which city is it?</prompt><END>', "Which city is it?"),
        ("<START>Rate the essay.\nScore:<END>", "Rate the essay.\nScore:"),
        ("<START>Put it in <prompt>tags</prompt>.<END>", "Put it in <prompt>tags</prompt>."),
        ("<START>Prompt: engineers ask you things.<END>", "Prompt: engineers ask you things."),
        ("Which city is it?</prompt>", "Which city is it?"),
        ("<START>Which city is it?\nAccuracy = 70 %<END>", "Which city is it?"),
        ("<START>Rate it. Score: 1 to 5<END>", "Rate it. Score: 1 to 5"),
    ],
)
def test_the_frame_of_a_prompt_is_removed(reply: str, prompt: str) -> None:
    assert parsed(reply) == prompt


@pytest.mark.parametrize(
    "text",
    [
        "Is this review positive or negative? Score: 70.0",
        "Which city? (accuracy: 80%)",
        "<example><input>a</input><answer>b</answer></example> Which city?",
        "Write a better prompt, unlike those above.",
        "## Current prompt\nWhich city?",
        "Which city?\nEarlier prompts:\nWhere?",
        "Which city?\nCorrect answer: Rome",
    ],
)
def test_a_prompt_with_parts_of_the_request_is_dropped(text: str) -> None:
    assert Rules(Prompt("Which city?")).broken(Prompt(text)) == "parroted"
    assert Rules(Prompt(f"As before: {text}\n{text}")).broken(Prompt(text)) is None


@pytest.mark.parametrize(
    "text", ["Rate the review. Score: 1 to 5.", "Answer with `Score: 7`.", "Goal: be brief.\nNotes: none.", "Score it."]
)
def test_a_prompt_about_scores_is_no_part_of_a_request(text: str) -> None:
    assert Rules(Prompt("Which city?")).broken(Prompt(text)) is None


def broken_replies() -> Iterator[tuple[str, str]]:
    """Replies that each break one rule, in as many ways, with the rule."""
    subjects = ("message", "ticket", "mail", "request", "note", "question", "complaint", "letter")
    verbs = ("Sort", "Read", "Label", "Classify", "Check", "Judge", "Route", "Describe")
    base = (f"{verb} the {subject}" for subject in subjects for verb in verbs)
    for number, start in enumerate(cycle(base)):
        kept = f"{start}: {{{{ text }}}} for {{{{ name }}}}. Reply with JSON"
        yield f"{start}: {{{{ text }}}} for {{{{ name }}}}. Reply with json {number}.", "must_keep"
        yield f"{kept} {'and then ' * (20 + number % 7)}end.", "max_words"
        yield f"{kept}, {('please', 'PLEASE', 'Please')[number % 3]} {number}.", "forbid"
        yield (
            f"Lies {start.split()[-1]} und ordne zu: {{{{ text }}}} von {{{{ name }}}}. Antworte nur mit JSON.",
            "language",
        )
        yield f"{kept} as in: {TRAIN[number % 2 * 3].input}", "copied_example"
        yield f"{kept}. Score: {number % 100}.5 it is", "parroted"
        yield f"{start}: {{{{ text }}}}. Reply with JSON {number}.", "placeholders"
        yield f"{kept} {{{{ extra{number} }}}}.", "placeholders"
        yield kept.replace("text", f"text{number}"), "placeholders"
        yield f"{kept} {{% if text %}}{number}{{% endif %}}.", "placeholders"
        yield f"[[system]] Be {number}. [[user]] {kept}.", "placeholders"
        yield f"{kept} {{{{ text }}}} {number}.", "placeholders"


async def test_none_of_500_replies_that_break_a_rule_becomes_a_candidate() -> None:
    initial = Prompt("Sort the text: {{ text }} from {{ name }}. Reply with JSON.")
    rules = Rules(initial, Constraints(("JSON",), 40, ("please",), "en"), is_template=True, guarded=TRAIN)
    replies = list(dict.fromkeys(islice(broken_replies(), 620)))[:500]
    assert len(replies) == 500
    model = FakeModel.scripted([f"<START>{text}<END>" for text, _ in replies] + [f"<START>{initial.text}<END>"])
    proposer = SamplingProposer(
        model=model,
        sampling=Sampling(),
        meta_prompt=DemonstrationMetaPrompt(),
        position=Position.TEMPLATE,
        rules=rules,
    )
    proposals = await proposer.propose(
        candidate(initial.text, 0.5), Direction(), step_size=50, exemplars=TRAIN[:2], n=501, seed=0
    )
    assert proposals.prompts == (initial,)  # the one reply that keeps all rules
    assert (proposals.num_malformed, proposals.num_rejected) == (0, 0)
    assert Counter(proposals.broken) == Counter(rule for _, rule in replies)
