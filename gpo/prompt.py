"""A prompt, and how far one prompt is from another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from rapidfuzz.distance import Levenshtein

from gpo.process import PicklesFieldsOnly


@dataclass(frozen=True)
class Prompt(PicklesFieldsOnly):
    """The text that is optimized: an instruction, as the task model will read it."""

    text: str

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that depend on the text alone; what logs show in place of the text."""
        return blake2b(self.text.encode(), digest_size=6).hexdigest()

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The text split at white space; punctuation stays with its word."""
        return tuple(self.text.split())


def edit_distance(before: Prompt, after: Prompt) -> int:
    """Words inserted, deleted or replaced between two prompts (Levenshtein over words; symmetric, 0 for equal words).

    The paper bounds this number by the step size. White space does not count. O(n·m) in the numbers of words.
    """
    return Levenshtein.distance(before.words, after.words)
