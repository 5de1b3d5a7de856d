"""What the simulated task model was asked: an example of one of its domains, and the prompt around it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from benchmarks.simulated.domains import DOMAINS
from benchmarks.simulated.landscape import WEIGHTS, words_of

MEANING: Mapping[str, tuple[str, str]] = {
    keyword: (name, label)
    for name, domain in DOMAINS.items()
    for label, keywords in domain.keywords.items()
    for keyword in keywords
}
"""Keyword → the domain and the label that it stands for."""

# "Q:" and "A:" set question and answer apart; they belong to neither.
_MARKS = re.compile(r"^[QA]:[ \t]*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Question:
    """An example, its domain and right label, and the prompt."""

    text: str
    domain: str
    label: str
    prompt: str


@lru_cache(maxsize=65536)
def keywords_in(line: str) -> frozenset[str]:
    """The keywords in a text, of any domain."""
    return words_of(line) & MEANING.keys()


@lru_cache(maxsize=65536)
def _unlike_an_example(line: str) -> tuple[int, int]:
    # A prompt may mention keywords too: it then names several, or speaks of labels and answers.
    return len(keywords_in(line)), len(words_of(line) & WEIGHTS.keys())


def read_question(text: str) -> Question | None:
    """The example in a text, and the prompt, which is all the rest; ``None`` where no line holds a keyword.

    Where several lines hold keywords, the example is the one with the fewest, and among those the one with the fewest
    words that matter in a prompt.
    """
    lines = _MARKS.sub("", text).split("\n")
    with_keywords = [index for index, line in enumerate(lines) if keywords_in(line)]
    if not with_keywords:
        return None
    example = lines.pop(min(with_keywords, key=lambda index: _unlike_an_example(lines[index]))).strip()
    domain, label = MEANING[min(keywords_in(example))]
    return Question(example, domain, label, "\n".join(lines).strip())
