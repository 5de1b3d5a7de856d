from __future__ import annotations

from dataclasses import replace
from statistics import mean
from typing import Any

import pytest

from benchmarks.simulated import task_model
from benchmarks.simulated.domains import DOMAINS, splits
from benchmarks.simulated.landscape import quality, weights
from benchmarks.simulated.task_model import Question, read_question
from gpo.data.example import Example
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.metrics import BooleanScorer, ChoiceScorer, ExactScorer, LabelScorer, NumberScorer, Scorer
from gpo.models.protocol import Message
from gpo.prompt import Prompt

INITIAL = DOMAINS["tickets"].initial
EXAMPLES = {
    domain: [Example(row["text"], (row["label"],)) for rows in splits(domain, seed=130).values() for row in rows]
    for domain in DOMAINS
}
# A filled-in template is one text; the simulated model cannot tell the prompt in it from the input.
POSITIONS = [position for position in Position if position is not Position.TEMPLATE]
TICKET = EXAMPLES["tickets"][0].input


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def right(domain: str, prompt: str, answer_format: AnswerFormat, seed: int = 0) -> set[str]:
    """The texts that are answered rightly under a prompt."""
    asked = [(example, answer_format.messages(Prompt(prompt), example)) for example in EXAMPLES[domain]]
    answers = [(example, task_model.answer(messages, seed=seed)) for example, messages in asked]
    assert {answer for _, answer in answers} <= set(DOMAINS[domain].labels)
    return {example.input for example, answer in answers if answer == example.target}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_share_of_right_answers_is_the_prompts_quality(domain: str) -> None:
    initial, effects = DOMAINS[domain].initial, weights(domain)
    good = f"{initial} {' '.join(sorted(effects, key=lambda word: effects[word])[-12:])}"
    bad = f"{initial} {min(effects, key=lambda word: effects[word])}"
    assert right(domain, bad, AnswerFormat()) < right(domain, initial, AnswerFormat())
    assert right(domain, initial, AnswerFormat()) < right(domain, good, AnswerFormat())
    for prompt in (initial, good):
        shares = [len(right(domain, prompt, AnswerFormat(), seed)) / len(EXAMPLES[domain]) for seed in range(10)]
        assert mean(shares) == pytest.approx(quality(prompt, domain), abs=0.06)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("prompt", [INITIAL, "Sort them:\nbilling (invoice, refund) or account (login).", "Label it."])
def test_example_and_prompt_are_separated_at_every_position(position: Position, marked: bool, prompt: str) -> None:
    for domain, examples in EXAMPLES.items():
        text, label = examples[0].input, examples[0].target
        messages = AnswerFormat(position, question_marks=marked).messages(Prompt(prompt), examples[0])
        assert read_question("\n".join(turn["content"] for turn in messages)) == Question(text, domain, label, prompt)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("num_demonstrations", [0, 2])
@pytest.mark.parametrize("prompt", [INITIAL, "Now give only the final answer."])
def test_a_follow_up_gets_the_same_answer(position: Position, num_demonstrations: int, prompt: str) -> None:
    scorer = LabelScorer(DOMAINS["tickets"].labels)
    form = AnswerFormat(position, rounds=2, demonstrations=tuple(EXAMPLES["tickets"][-num_demonstrations or 999 :]))
    assert len(form.demonstrations) == num_demonstrations
    answers = set()
    for example in EXAMPLES["tickets"][:20]:
        first = form.messages(Prompt(prompt), example)
        answer = task_model.answer(first, seed=0)
        assert task_model.answer([*first, *follow_up(answer, scorer, example)], seed=0) == answer
        answers.add(answer)
    assert len(answers) == 4


@pytest.mark.parametrize(
    ("scorer", "question", "target"),
    [
        (ChoiceScorer(), "Which one?\nOptions:\n(A) red\n(B) green", "(A)"),
        (BooleanScorer(), "Does it rain, Yes or No?", "Yes"),
        (NumberScorer(), "How many?", "4"),
        (ExactScorer(), "Who?", "Ada"),
    ],
)
def test_a_follow_up_to_any_other_question_gets_the_same_answer(scorer: Scorer, question: str, target: str) -> None:
    form = AnswerFormat(rounds=2, demonstrations=(Example("Which one?\nOptions:\n(Y) up\n(Z) down", ("(Z)",)),))
    for number in range(10):
        example = Example(f"Case {number}: {question}", (target,))
        first = form.messages(Prompt("Think."), example)
        answer = task_model.answer(first, seed=0)
        assert answer not in ("(Y)", "(Z)")
        assert task_model.answer([*first, *follow_up(answer, scorer, example)], seed=0) == answer
        assert task_model.answer(replace(form, demonstrations=()).messages(Prompt("Think."), example), seed=0) == answer


def follow_up(answer: str, scorer: Scorer, example: Example) -> list[Message]:
    question = scorer.follow_up(example)
    assert question is not None
    return [{"role": "assistant", "content": f"I say {answer}."}, {"role": "user", "content": question}]
