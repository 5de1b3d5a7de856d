"""Requests in the formats of other optimizers."""

from __future__ import annotations

import asyncio
import json

from benchmarks.simulated import task_model
from benchmarks.simulated.models import SimulatedModel
from benchmarks.simulated.optimizer_requests import Assignment, ReflectionRequest
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


def test_requests_to_merge_and_to_rephrase_prompts_are_read() -> None:
    example = "Prompt 1: An example.\nPrompt 2: Another.\n2. Mutate it.\n<prompt>x</prompt>\n"
    parents = f"Prompt 1: {INITIAL}\nPrompt 2: Guess.\n<prompt>new prompt</prompt>"
    for content, expected in (
        (example + parents, Assignment(INITIAL, kind="editing", other="Guess.")),
        (f"Merge the two prompts:\n{parents}", Assignment(INITIAL, step_size=0, kind="editing", other="Guess.")),
        (f"Rephrase it.\nPrompt: {INITIAL}\n<prompt>new</prompt>", Assignment(INITIAL, kind="paraphrase")),
    ):
        found = read_foreign(user(content))
        assert found is not None
        assert found.assignment == expected
    merged = reply(user(f"Merge the two prompts:\n{parents}")).removeprefix("<prompt>").removesuffix("</prompt>")
    assert set(merged.split()) < {*INITIAL.split(), "Guess."}


def test_a_request_for_diverse_prompts_gets_a_list() -> None:
    written = json.loads(reply(user(f"Create diverse prompts.\n\nTask: {INITIAL}\n\nCreate overall 1 prompts.")))
    assert len(written) == 1
    assert written[0] != INITIAL


def test_fenced_blocks_of_gepa_are_read() -> None:
    asked = user(f"It was told:\n```\n{INITIAL}\n```\nIt said:\n```\n{TICKET}\n```\nAnswer within ``` blocks.")
    found = read_foreign(asked)
    assert found is not None
    assert found.assignment == Assignment(INITIAL)
    failed = read_foreign(user(asked[0]["content"].replace(TICKET, f"{TICKET} The generated response is incorrect.")))
    assert failed is not None
    assert failed.assignment == Assignment(INITIAL, failures=ReflectionRequest(INITIAL, "tickets", 1))
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


def test_failures_in_json_of_dspy_are_read() -> None:
    examples = json.dumps([{"Inputs": {"text": TICKET}, "Feedback": "This trajectory got a score of 0.2."}])
    asked = fields("Improve it.", "current_instruction", f"{INITIAL}\n\n[[ ## examples_with_feedback ## ]]\n{examples}")
    found = read_foreign(asked)
    assert found is not None
    assert found.assignment == Assignment(INITIAL, failures=ReflectionRequest(INITIAL, "tickets", 1))
    assert list(json.loads(reply(asked))) == ["new_instruction"]


def test_our_own_requests_are_not_taken_for_foreign_ones() -> None:
    assert read_foreign(user(f"Q: {INITIAL}\n{TICKET}\nA:")) is None
    assert read_foreign(user("[[ ## what is this?")) is None
