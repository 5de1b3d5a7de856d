"""Reading the optimizer model's replies."""

from __future__ import annotations

import re

from gpo.errors import MalformedReply
from gpo.models.protocol import Completion
from gpo.prompt import Prompt
from gpo.text import without_controls

_START = re.compile(r"<START>", re.IGNORECASE)
_END = re.compile(r"</?END>|</START>", re.IGNORECASE)
# One pair of marks around the whole. A quoted word at either end is no such pair, an apostrophe in a word no mark.
_QUOTED = re.compile(
    r"""\s*(?:"([^"]*)"|“([^“”]*)”|'((?:[^']|(?<=\w)'(?=\w))*)'|```(?:\w*\n)?([^`]*)```|`([^`]*)`)\s*"""
)
_BLANK_LINE = re.compile(r"\n\s*\n")


def parse_reply(reply: Completion, *, max_words: int = 1000, max_characters: int = 20_000) -> Prompt:
    """The prompt in a reply.

    What stands between the last ``<START>`` that anything follows and the ``<END>`` after it (or the end of the reply,
    where the model stopped there by itself), without quotation marks or a code fence around it. A reply without tags
    counts as the prompt where it is a single paragraph. The prompt is always valid Unicode without control characters.

    Raises:
        MalformedReply: no prompt, one cut off at the token limit, or one of more than ``max_words`` words or
            ``max_characters`` characters, such as a single endless word.
    """
    text = without_controls(reply.text)
    # Where the opening tag was put into the model's mouth, or ``stop`` took the closing one, only one tag is left.
    untagged, *tagged = _START.split(text)
    body = next((part for part in reversed(tagged) if part.strip()), "") if tagged else untagged
    found, *after_end = _END.split(body, maxsplit=1)
    if not tagged and _BLANK_LINE.search(found.strip()):
        raise MalformedReply("the reply has no <START> … <END> and is longer than one paragraph")
    if reply.truncated and not after_end:
        raise MalformedReply("the reply was cut off at max_tokens before <END>")
    quoted = _QUOTED.fullmatch(found)
    found = (found if quoted is None else quoted[quoted.lastindex or 0]).strip()
    if not found:
        raise MalformedReply("the reply holds no prompt")
    if len(found.split()) > max_words:
        raise MalformedReply(f"the prompt in the reply is longer than {max_words} words")
    if len(found) > max_characters:
        raise MalformedReply(f"the prompt in the reply is longer than {max_characters} characters")
    return Prompt(found)
