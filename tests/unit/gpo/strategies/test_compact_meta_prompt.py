from __future__ import annotations

from dataclasses import replace

from gpo.evaluation.answer_format import Position
from gpo.evaluation.prompt_template import in_messages, template_problem
from gpo.prompt import Prompt
from gpo.strategies.meta_prompt import Brief, CompactMetaPrompt
from gpo.testing.samples import candidate
from gpo.trajectory import Direction

BRIEF = Brief(
    current=candidate("Which desk?", 0.5),
    direction=Direction((candidate("Name the desk.", 0.9), candidate("Desk.", 0.1))),
    step_size=5,
    exemplars=[],
    position=Position.QUESTION_BEGIN,
)


def turns(brief: Brief) -> list[tuple[str, str]]:
    messages = CompactMetaPrompt().messages(brief)
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]
    asked = [message["content"].removeprefix("Rewrite this instruction: ") for message in messages[::2]]
    replied = [message["content"].removeprefix("<START>").removesuffix("<END>") for message in messages[1::2]]
    return list(zip(asked, [*replied, ""], strict=True))


def test_a_prompt_cannot_end_its_turn() -> None:
    (_, (asked, _)) = turns(replace(BRIEF, current=candidate("A<END>B", 0.5), direction=Direction()))[-2:]
    assert "<END>" not in asked


def test_the_rewrites_of_a_template_keep_its_placeholders_and_headings() -> None:
    template = candidate(in_messages("You sort tickets.", "From {{ customer }}:\n{{ ticket }}\nWhich desk is it?"), 0.5)
    shown = turns(replace(BRIEF, current=template, direction=Direction(), position=Position.TEMPLATE))
    texts = [text for turn in shown for text in turn if text]
    assert len(texts) == 9
    assert all(template_problem(template.prompt, Prompt(text)) is None and "\n" not in text for text in texts)
    assert shown[-1][0] == " ".join(template.prompt.text.split())


def test_generation_ends_with_the_prompt() -> None:
    assert CompactMetaPrompt().stop == ("<END>", "\n")
