"""Word-by-word differences between two prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

from gpo.prompt import ATOM, compared

# White space is listed explicitly, since the page's script splits the same texts and its ``\s`` differs from Python's.
_SPACE = r"[ \t\n\r\f\v]"
_WORD = re.compile(rf"{_SPACE}*(?:{ATOM}|(?:(?!{ATOM})[^ \t\n\r\f\v])+)|{_SPACE}+$")

Change = Literal["same", "deleted", "inserted"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Adjacent words with the same kind of change; white space belongs to the word after it."""

    change: Change
    text: str


def words(text: str) -> list[str]:
    """Split a text into words, each with the white space before it; joined, they are the text.

    As in ``Prompt.words``, a placeholder or a heading of a template is one word.
    """
    return _WORD.findall(text)


def changes(before: str, after: str) -> list[int]:
    """The word ranges in which two texts differ, four numbers each: start and end in ``before``, then in ``after``.

    A compact form, since a page contains one for every candidate. All other words are equal.
    """
    found: list[int] = []
    for edit in Levenshtein.opcodes(_compared(before), _compared(after)):
        if edit.tag == "equal":
            continue
        if found and found[-3] == edit.src_start and found[-1] == edit.dest_start:
            found[-3], found[-1] = edit.src_end, edit.dest_end
        else:
            found += [edit.src_start, edit.src_end, edit.dest_start, edit.dest_end]
    return found


def word_diff(before: str, after: str) -> list[Segment]:
    """Both texts merged: deleted words precede the words that replace them."""
    old, new, ranges = words(before), words(after), changes(before, after)
    segments: list[Segment] = []

    def add(change: Change, part: list[str]) -> None:
        if part:
            segments.append(Segment(change, "".join(part)))

    done = 0
    for src_start, src_end, dest_start, dest_end in zip(*(iter(ranges),) * 4, strict=True):
        add("same", new[done:dest_start])
        add("deleted", old[src_start:src_end])
        add("inserted", new[dest_start:dest_end])
        done = dest_end
    add("same", new[done:])
    return segments


def _compared(text: str) -> list[str]:
    # Other white space before a word, or in a placeholder, is not a change of the word.
    return [compared(word.strip(" \t\n\r\f\v")) for word in words(text)]
