from __future__ import annotations

import pytest

from gpo.data.example import Example
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.prompt import Prompt

PROMPT, EXAMPLE = Prompt("Think."), Example("1 + 1?", ("2",))
AROUND_INPUT = [position for position in Position if position is not Position.TEMPLATE]
"""Those of a prompt that does not contain the input; ``test_prompt_template.py`` tests the other one."""


@pytest.mark.parametrize(
    ("position", "plain", "marked"),
    [
        (Position.QUESTION_END, "1 + 1?\nThink.", "Q: 1 + 1?\nThink.\nA:"),
        (Position.QUESTION_BEGIN, "Think.\n1 + 1?", "Q: Think.\n1 + 1?\nA:"),
        (Position.BEFORE_QUESTION, "Think.\n\n1 + 1?", "Think.\n\nQ: 1 + 1?\nA:"),
        (Position.ANSWER_BEGIN, "Q: 1 + 1?\nA: Think.", "Q: 1 + 1?\nA: Think."),
    ],
)
def test_one_turn_of_the_user(position: Position, plain: str, marked: str) -> None:
    for question_marks, content in ((False, plain), (True, marked)):
        asked = AnswerFormat(position, question_marks=question_marks)
        assert asked.messages(PROMPT, EXAMPLE) == [{"role": "user", "content": content}]


@pytest.mark.parametrize(("question_marks", "content"), [(False, "1 + 1?"), (True, "Q: 1 + 1?\nA:")])
def test_a_system_message_separates_the_prompt(question_marks: bool, content: str) -> None:
    asked = AnswerFormat(Position.SYSTEM, question_marks=question_marks)
    assert asked.messages(PROMPT, EXAMPLE) == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": content},
    ]


@pytest.mark.parametrize("position", AROUND_INPUT)
def test_every_position_shows_prompt_and_input_once(position: Position) -> None:
    shown = "\n".join(message["content"] for message in AnswerFormat(position).messages(PROMPT, EXAMPLE))
    assert (shown.count("Think."), shown.count("1 + 1?")) == (1, 1)


SHOWN = (Example("2 + 2?", ("4",)), Example("3 + 3?", ("6", "six")))


@pytest.mark.parametrize("question_marks", [False, True])
@pytest.mark.parametrize("position", AROUND_INPUT)
def test_demonstrations_are_asked_like_the_question_and_answered_before_it(
    position: Position, question_marks: bool
) -> None:
    plain = AnswerFormat(position, question_marks=question_marks)
    asked = AnswerFormat(position, question_marks=question_marks, demonstrations=SHOWN).messages(PROMPT, EXAMPLE)
    before = [message for message in asked if message["role"] == "system"]
    turns = asked[len(before) :]
    assert before == [message for message in plain.messages(PROMPT, EXAMPLE) if message["role"] == "system"]
    assert asked[: len(before)] == before
    assert turns[0::2] == [plain.messages(PROMPT, example)[-1] for example in (*SHOWN, EXAMPLE)]
    assert turns[1::2] == [{"role": "assistant", "content": "4"}, {"role": "assistant", "content": "6"}]


def test_a_demonstrated_answer_continues_the_prompt_that_began_it() -> None:
    asked = AnswerFormat(Position.ANSWER_BEGIN, demonstrations=SHOWN[:1])
    assert asked.messages(PROMPT, EXAMPLE) == [
        {"role": "user", "content": "Q: 2 + 2?\nA: Think."},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Q: 1 + 1?\nA: Think."},
    ]
