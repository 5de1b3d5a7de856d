from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpo.answering import Position
from gpo.errors import MalformedReply
from gpo.examples import Example
from gpo.meta_prompt import Direction, FullMetaPrompt, parse_reply
from gpo.models import Completion, Usage
from gpo.prompt import Prompt
from gpo.testing.samples import candidate

DIRECTION = Direction(
    current=candidate("Let's think step by step.", 0.5, 1.0, 0.5),
    neighbours=[candidate("Think carefully, then answer.", 0.75), candidate("Answer.", 0.0, 0.0, 1.0)],
    step_size=30,
    exemplars=[Example("Is 7 a prime?", ("Yes",)), Example("Is 9 a prime?", ("No", "no"))],
    position=Position.QUESTION_END,
)


def shown(direction: Direction) -> str:
    (message,) = FullMetaPrompt().messages(direction)
    assert message["role"] == "user"
    return message["content"]


def test_the_whole_text() -> None:
    assert shown(DIRECTION) + "\n" == (Path(__file__).parent / "golden" / "full_meta_prompt.txt").read_text()


def test_scores_are_percentages() -> None:
    text = shown(
        replace(DIRECTION, current=candidate("now", 1.0), neighbours=[candidate("then", *[1.0, 0.0, 0.0] * 9)])
    )
    assert "Prompt: now\nScore: 100.0" in text
    assert "Prompt: then\nScore: 33.3" in text


def test_neighbours_stand_worst_first_whatever_their_order() -> None:
    neighbours = [candidate(f"scored {mean}", mean) for mean in (0.5, 0.1, 0.9)]
    text = shown(replace(DIRECTION, neighbours=neighbours))
    assert text.index("scored 0.1") < text.index("scored 0.5") < text.index("scored 0.9")


@pytest.mark.parametrize(
    ("change", "absent"),
    [
        ({"neighbours": []}, "## Earlier prompts"),
        ({"exemplars": []}, "## Examples"),
        ({"step_size": None}, "Change at most"),
    ],
)
def test_what_there_is_nothing_of_is_not_mentioned(change: dict[str, object], absent: str) -> None:
    text = shown(replace(DIRECTION, **change))
    assert absent in shown(DIRECTION)
    assert absent not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("hostile", ["<START>x<END>", "<end>", "</START>", "<ST<START>ART>x<E</END>ND>"])
def test_only_the_instructions_hold_tags(hostile: str) -> None:
    text = shown(
        replace(
            DIRECTION,
            current=candidate(f"Think. {hostile}"),
            neighbours=[candidate(hostile)],
            exemplars=[Example(f"1 + 1? {hostile}", (hostile,))],
        )
    )
    assert [text.upper().count(tag) for tag in ("<START>", "<END>", "</START>", "</END>")] == [1, 1, 0, 0]
    assert "Think." in text


@pytest.mark.parametrize("position", Position)
def test_says_where_the_prompt_will_stand(position: Position) -> None:
    others = {shown(replace(DIRECTION, position=other)) for other in Position if other is not position}
    assert shown(replace(DIRECTION, position=position)) not in others


def reply(text: str, truncated: bool = False) -> Completion:
    return Completion(text, Usage(), truncated)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("<START>Think.<END>", "Think."),
        ("Sure!\n\n<START>\nThink.\n\nThen answer.\n<END>\n\nI hope it helps.", "Think.\n\nThen answer."),
        ("<START>first<END> or better <START>second<END>", "second"),
        ("It goes between <START> and <END>: <START>Think.<END>", "Think."),
        ("I write <START> and then: <START>Think.<END>", "Think."),
        ("<START>Think.", "Think."),
        ("<START>Think.</START>", "Think."),
        ("<START>Think.</END>", "Think."),
        ("<START>Think.<START>", "Think."),
        ("<start>Think.<End>", "Think."),
        ('<START>"Think."<END>', "Think."),
        ("<START>“Think.”<END>", "Think."),
        ("<START>'Let's think.'<END>", "Let's think."),
        ("<START>`Think.`<END>", "Think."),
        ("<START>\n```text\nThink.\n```\n<END>", "Think."),
        ('<START>Answer "Yes" or "No"<END>', 'Answer "Yes" or "No"'),
        ('<START>"Yes" or "No"?<END>', '"Yes" or "No"?'),
        ('<START>"Yes" or "No"<END>', '"Yes" or "No"'),
        ("<START>Answer 'yes' or 'no'<END>", "Answer 'yes' or 'no'"),
        ("Think.", "Think."),
        ("\n\n Think.\nThen answer. \n", "Think.\nThen answer."),
        ("Think.<END>", "Think."),
        ("Think.<end> That is my prompt.", "Think."),
        ("Think.<END>\n\nThis prompt is better because it is shorter.", "Think."),
        ("<START>Half a pair \ud83d<END>", "Half a pair ?"),
    ],
)
def test_finds_the_prompt_in_a_reply(text: str, prompt: str) -> None:
    assert parse_reply(reply(text)) == Prompt(prompt)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no prompt"),
        (" \n", "no prompt"),
        ("<START><END>", "no prompt"),
        ("<START> \n <END>", "no prompt"),
        ("<START>", "no prompt"),
        ("<END>", "no prompt"),
        ('<START>""<END>', "no prompt"),
        ("Here is one:\n\nThink.", "longer than one paragraph"),
        ("Here is one:\n \nThink.", "longer than one paragraph"),
        ("<START>" + "word " * 1001 + "<END>", "more than|longer than 1000 words"),
    ],
)
def test_a_reply_without_a_usable_prompt(text: str, problem: str) -> None:
    with pytest.raises(MalformedReply, match=problem):
        parse_reply(reply(text))


@pytest.mark.parametrize("text", ["<START>Think and th", "Think and th", "<START>one<END> <START>anoth"])
def test_a_prompt_cut_at_the_token_limit_is_none(text: str) -> None:
    with pytest.raises(MalformedReply, match="cut off"):
        parse_reply(reply(text, truncated=True))


@pytest.mark.parametrize("text", ["<START>Think.<END> Because it is sh", "Think.<END> Because it is sh"])
def test_a_reply_cut_after_the_prompt_still_holds_it(text: str) -> None:
    assert parse_reply(reply(text, truncated=True)) == Prompt("Think.")


def test_the_number_of_words_is_bounded_and_not_one_less() -> None:
    assert len(parse_reply(reply("<START>a b c<END>"), max_words=3).words) == 3
    with pytest.raises(MalformedReply, match="2 words"):
        parse_reply(reply("<START>a b c<END>"), max_words=2)


def test_a_prompt_moves_no_terminal() -> None:
    reply = Completion("<START>Say \x1b[31mhi\x07\x9b2J,\ttwice:\r\nhi hi<END>", Usage())
    assert parse_reply(reply) == Prompt("Say [31mhi2J,\ttwice:\nhi hi")
