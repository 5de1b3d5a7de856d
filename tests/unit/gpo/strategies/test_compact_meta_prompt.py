from __future__ import annotations

from dataclasses import replace

import pytest

from gpo.evaluation.answer_format import Position
from gpo.evaluation.prompt_template import in_messages, template_problem
from gpo.prompt import Prompt
from gpo.strategies.meta_prompt import Brief, CompactMetaPrompt, Kind
from gpo.testing.samples import candidate
from gpo.trajectory import Direction, Failure

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


def test_the_last_turn_asks_for_a_rewrite_of_the_current_prompt() -> None:
    assert turns(BRIEF)[-1] == ("Which desk?", "")


def test_retrieved_prompts_become_rewrites_worst_first() -> None:
    assert turns(BRIEF)[-3:-1] == [("Desk.", "Name the desk."), ("Name the desk.", "Which desk?")]


def test_without_neighbours_only_the_fixed_turns_are_left() -> None:
    alone = turns(replace(BRIEF, direction=Direction()))
    assert alone[:-1] == turns(BRIEF)[:-3]
    assert len(alone) > 3


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


@pytest.mark.parametrize("kind", ["generation", "editing", "paraphrase"])
def test_every_kind_asks_for_what_it_shows(kind: Kind) -> None:
    messages = CompactMetaPrompt(kind).messages(BRIEF)
    requests = {message["content"].partition(": ")[0] for message in messages[::2]}
    assert len(requests) == 1
    assert all(
        requests.isdisjoint({CompactMetaPrompt(other).messages(BRIEF)[0]["content"].partition(": ")[0]})
        for other in ("generation", "editing", "paraphrase")
        if other != kind
    )


def test_the_reflection_comes_before_the_last_request_and_is_shortened() -> None:
    direction = Direction(summary="Short ones fail.", reflection="word " * 100 + "<END>")
    last = CompactMetaPrompt().messages(replace(BRIEF, direction=direction))[-1]["content"]
    assert last.startswith("Note: Short ones fail.\n\nNote: word word")
    assert last.endswith("word …\n\nRewrite this instruction: Which desk?")


def test_generation_ends_with_the_prompt() -> None:
    assert CompactMetaPrompt().stop == ("<END>", "\n")


def test_the_reasons_of_failures_precede_the_request_as_a_note() -> None:
    failures = [Failure("1 + 1", "2", "Hm.", reason) for reason in ("no number", "", "no number", "read as 3")]
    brief = replace(BRIEF, direction=Direction(failures=tuple(failures)))
    last = CompactMetaPrompt().messages(brief)[-1]["content"]
    assert last.startswith("Note: Answers were wrong: no number; read as 3\n\n")
    brief = replace(BRIEF, direction=Direction(failures=(Failure("1 + 1", "2", "Hm."),)))
    assert "Note" not in CompactMetaPrompt().messages(brief)[-1]["content"]
