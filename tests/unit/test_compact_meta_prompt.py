from __future__ import annotations

from dataclasses import replace

from gpo.answering import Position
from gpo.compact_meta_prompt import CompactMetaPrompt
from gpo.meta_prompt import Direction
from gpo.testing.samples import candidate

DIRECTION = Direction(
    current=candidate("Which desk?", 0.5),
    neighbours=[candidate("Name the desk.", 0.9), candidate("Desk.", 0.1)],
    step_size=5,
    exemplars=[],
    position=Position.QUESTION_BEGIN,
)


def turns(direction: Direction) -> list[tuple[str, str]]:
    messages = CompactMetaPrompt().messages(direction)
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]
    asked = [message["content"].removeprefix("Rewrite this instruction: ") for message in messages[::2]]
    replied = [message["content"].removeprefix("<START>").removesuffix("<END>") for message in messages[1::2]]
    return list(zip(asked, [*replied, ""], strict=True))


def test_the_last_turn_asks_for_a_rewrite_of_the_current_prompt() -> None:
    assert turns(DIRECTION)[-1] == ("Which desk?", "")


def test_retrieved_prompts_become_rewrites_worst_first() -> None:
    assert turns(DIRECTION)[-3:-1] == [("Desk.", "Name the desk."), ("Name the desk.", "Which desk?")]


def test_without_neighbours_only_the_fixed_turns_are_left() -> None:
    alone = turns(replace(DIRECTION, neighbours=[]))
    assert alone[:-1] == turns(DIRECTION)[:-3]
    assert len(alone) > 3


def test_a_prompt_cannot_end_its_turn() -> None:
    (_, (asked, _)) = turns(replace(DIRECTION, current=candidate("A<END>B", 0.5), neighbours=[]))[-2:]
    assert "<END>" not in asked


def test_generation_ends_with_the_prompt() -> None:
    assert CompactMetaPrompt().stop == ("<END>", "\n")
