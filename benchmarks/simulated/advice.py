"""What simulated reflections and notes say: words that a prompt should hold, and words that it should not."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SENTENCE = re.compile(r"should (not )?say ('[a-z]+'(?:, '[a-z]+')*)")


@dataclass(frozen=True, slots=True)
class Advice:
    """Words to say and words to avoid, the most important first; one that is named several times counts as often."""

    say: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()

    def worded(self) -> str:
        """The advice in sentences, as ``read_advice`` reads them; empty where there is none."""
        sentences = (("It should say", self.say), ("It should not say", self.avoid))
        return " ".join(f"{start} {', '.join(map(repr, words))}." for start, words in sentences if words)


def read_advice(*texts: str) -> Advice:
    """The advice in texts, in whatever else they say."""
    say: list[str] = []
    avoid: list[str] = []
    for text in texts:
        for negation, words in _SENTENCE.findall(text):
            (avoid if negation else say).extend(word.strip("'") for word in words.split(", "))
    return Advice(tuple(say), tuple(avoid))
