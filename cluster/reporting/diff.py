"""What changed between two prompts, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

# Blanks are named one by one: the page's script splits the same texts, and its idea of white space is another.
_WORD = re.compile(r"[ \t\n\r\f\v]*[^ \t\n\r\f\v]+|[ \t\n\r\f\v]+$")

Change = Literal["same", "deleted", "inserted"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Words that stand next to each other and fared alike; white space belongs to the word after it."""

    change: Change
    text: str


def words(text: str) -> list[str]:
    """The text in words, each with the white space before it; put together again, they are the text."""
    return _WORD.findall(text)


def changes(before: str, after: str) -> list[int]:
    """Where two texts differ: four numbers a place, first and end of the words in ``before``, then in ``after``.

    Compact, since a page holds one for every candidate. Between the places, the words are the same.
    """
    found: list[int] = []
    for place in Levenshtein.opcodes(_compared(before), _compared(after)):
        if place.tag == "equal":
            continue
        if found and found[-3] == place.src_start and found[-1] == place.dest_start:
            found[-3], found[-1] = place.src_end, place.dest_end
        else:
            found += [place.src_start, place.src_end, place.dest_start, place.dest_end]
    return found


def word_diff(before: str, after: str) -> list[Segment]:
    """Both texts as one: what is deleted goes before what is inserted in its place."""
    old, new, place = words(before), words(after), changes(before, after)
    segments: list[Segment] = []

    def add(change: Change, part: list[str]) -> None:
        if part:
            segments.append(Segment(change, "".join(part)))

    done = 0
    for src_start, src_end, dest_start, dest_end in zip(*(iter(place),) * 4, strict=True):
        add("same", new[done:dest_start])
        add("deleted", old[src_start:src_end])
        add("inserted", new[dest_start:dest_end])
        done = dest_end
    add("same", new[done:])
    return segments


def _compared(text: str) -> list[str]:
    # A line break in place of a blank is no change of the word after it.
    return [word.strip(" \t\n\r\f\v") for word in words(text)]
