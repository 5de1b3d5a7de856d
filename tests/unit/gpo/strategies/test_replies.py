from __future__ import annotations

import pytest

from gpo.errors import MalformedReply
from gpo.models.protocol import Completion, Usage
from gpo.prompt import Prompt
from gpo.strategies.proposer import parse_reply


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
def test_the_prompt_is_found_in_a_reply(text: str, prompt: str) -> None:
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
def test_a_reply_without_a_usable_prompt_is_malformed(text: str, problem: str) -> None:
    with pytest.raises(MalformedReply, match=problem):
        parse_reply(reply(text))


@pytest.mark.parametrize("text", ["<START>Think and th", "Think and th", "<START>one<END> <START>anoth"])
def test_a_prompt_cut_at_the_token_limit_is_malformed(text: str) -> None:
    with pytest.raises(MalformedReply, match="cut off"):
        parse_reply(reply(text, truncated=True))


@pytest.mark.parametrize("text", ["<START>Think.<END> Because it is sh", "Think.<END> Because it is sh"])
def test_a_reply_cut_after_the_prompt_still_holds_it(text: str) -> None:
    assert parse_reply(reply(text, truncated=True)) == Prompt("Think.")


def test_the_number_of_words_is_bounded_and_not_one_less() -> None:
    assert len(parse_reply(reply("<START>a b c<END>"), max_words=3).words) == 3
    with pytest.raises(MalformedReply, match="2 words"):
        parse_reply(reply("<START>a b c<END>"), max_words=2)


def test_control_characters_are_removed_from_a_prompt() -> None:
    reply = Completion("<START>Say \x1b[31mhi\x07\x9b2J,\ttwice:\r\nhi hi<END>", Usage())
    assert parse_reply(reply) == Prompt("Say [31mhi2J,\ttwice:\nhi hi")
