"""The simulated task: to tell which team a support ticket belongs to.

A ticket is one line of text with exactly one keyword. The keyword decides the label, so that the simulated task model
knows the right answer to every ticket without the data files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from benchmarks.simulated.landscape import WEIGHTS, words_of

KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "billing": ("invoice", "refund", "payment", "receipt", "surcharge", "discount", "subscription", "overcharge"),
    "technical": ("crash", "error", "bug", "outage", "glitch", "timeout", "malfunction", "freeze"),
    "shipping": ("parcel", "courier", "delivery", "package", "shipment", "pallet", "dispatch", "postage"),
    "account": ("password", "login", "username", "profile", "registration", "passcode", "logout", "avatar"),
}
"""Label → the keywords that stand for it. No keyword is a word that the simulated optimizer model would write."""

LABELS = tuple(KEYWORDS)

LABEL_OF: Mapping[str, str] = {keyword: label for label, keywords in KEYWORDS.items() for keyword in keywords}

# "Q:" and "A:" set question and answer apart; they belong to neither.
_MARKS = re.compile(r"^[QA]:[ \t]*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Question:
    """What a task model was asked: a ticket, its right label, and the prompt around it."""

    ticket: str
    label: str
    prompt: str


@lru_cache(maxsize=65536)
def keywords_in(line: str) -> frozenset[str]:
    """The keywords in a text."""
    return words_of(line) & LABEL_OF.keys()


@lru_cache(maxsize=65536)
def _unlike_a_ticket(line: str) -> tuple[int, int]:
    # A prompt may mention keywords too: it then names several, or speaks of labels and answers.
    return len(keywords_in(line)), len(words_of(line) & WEIGHTS.keys())


def read_question(text: str) -> Question | None:
    """The ticket in a text, and the prompt, which is all the rest; ``None`` where no line holds a keyword.

    Where several lines hold keywords, the ticket is the one with the fewest, and among those the one with the fewest
    words that matter in a prompt.
    """
    lines = _MARKS.sub("", text).split("\n")
    tickets = [index for index, line in enumerate(lines) if keywords_in(line)]
    if not tickets:
        return None
    ticket = lines.pop(min(tickets, key=lambda index: _unlike_a_ticket(lines[index]))).strip()
    return Question(ticket, LABEL_OF[min(keywords_in(ticket))], "\n".join(lines).strip())
