"""Requests in the formats of other optimizers."""

from __future__ import annotations

import asyncio

from benchmarks.simulated import task_model
from benchmarks.simulated.models import SimulatedModel
from benchmarks.simulated.optimizer_requests import Assignment
from benchmarks.simulated.other_optimizers import read_foreign
from gpo.models.protocol import Message, Sampling

INITIAL = "Classify the support ticket into one of: billing, technical, shipping, account."
TICKET = "Hello, my invoice has been bothering me since Monday, so what should I do now?"


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def reply(messages: list[Message]) -> str:
    return asyncio.run(SimulatedModel().complete(messages, Sampling(temperature=1.0, seed=1))).text


def test_tags_of_promptolution_are_read() -> None:
    scored = f"Some instructions.\n\ntext:\nGuess.\nscore: 10\n\ntext:\n{INITIAL}\nscore: 30\n\n"
    asked = user(f"{scored}Write one with <prompt> before it and </prompt> after it.")
    found = read_foreign(asked)
    assert found is not None
    assert found.assignment == Assignment(INITIAL, (("Guess.", 10.0), (INITIAL, 30.0)))
    assert reply(asked).startswith("<prompt>")
    assert reply(asked).endswith("</prompt>")
    parents = user(
        f"Prompt 1: An example.\nPrompt 2: Another.\n<prompt>x</prompt>\nPrompt 1: {INITIAL}\nPrompt 2: Guess."
    )
    bred = read_foreign(parents)
    assert bred is not None
    assert bred.assignment == Assignment(INITIAL)


def test_fenced_blocks_of_gepa_are_read() -> None:
    asked = user(f"It was told:\n```\n{INITIAL}\n```\nIt said:\n```\n{TICKET}\n```\nAnswer within ``` blocks.")
    found = read_foreign(asked)
    assert found is not None
    assert found.assignment == Assignment(INITIAL)
    assert reply(asked).startswith("```\n")
    assert reply(asked).endswith("\n```")
    assert reply(asked).count("```") == 2


def fields(objective: str, name: str, value: str, *wanted: str) -> list[Message]:
    respond = ", then ".join(f"`[[ ## {one} ## ]]`" for one in (*wanted, "completed"))
    shown = f"[[ ## {name} ## ]]\n{value}\n\nRespond with the corresponding output fields: {respond}."
    instruction = f"[[ ## {name} ## ]]\n{{{name}}}\n\nyour objective is: \n        {objective}"
    return [{"role": "system", "content": instruction}, {"role": "user", "content": shown}]


def test_a_question_in_fields_of_dspy_is_answered() -> None:
    asked = fields(INITIAL, "text", TICKET, "label")
    answer = task_model.answer(user(f"{INITIAL}\n{TICKET}"), seed=0)
    assert reply(asked) == f"[[ ## label ## ]]\n{answer}\n\n[[ ## completed ## ]]"


def test_a_new_instruction_in_fields_of_dspy_is_written() -> None:
    wanted = ("proposed_instruction", "proposed_prefix_for_output_field")
    first = read_foreign(fields("Improve it.", "basic_instruction", INITIAL, *wanted))
    assert first is not None
    assert first.assignment == Assignment(INITIAL)
    attempts = [f"{what} #{n}: {value}" for n, values in enumerate((("Guess.", "L:", "10.0"), (INITIAL, "L:", "30")), 1)
                for what, value in zip(("Instruction", "Prefix", "Resulting Score"), values, strict=True)]  # fmt: skip
    asked = fields("Improve it.", "attempted_instructions", "\n".join(attempts), *wanted)
    later = read_foreign(asked)
    assert later is not None
    assert later.assignment == Assignment(INITIAL, (("Guess.", 10.0), (INITIAL, 30.0)))
    assert [line for line in reply(asked).splitlines() if line.startswith("[[ ## ")] == [
        f"[[ ## {name} ## ]]" for name in (*wanted, "completed")
    ]


def test_our_own_requests_are_not_taken_for_foreign_ones() -> None:
    assert read_foreign(user(f"Q: {INITIAL}\n{TICKET}\nA:")) is None
    assert read_foreign(user("[[ ## what is this?")) is None
