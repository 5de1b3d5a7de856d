"""A prompt, and the distance between prompts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from rapidfuzz.distance import Levenshtein

from gpo.process import PicklesFieldsOnly


@dataclass(frozen=True)
class Prompt(PicklesFieldsOnly):
    """The text that is optimized: an instruction to the task model."""

    text: str

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits computed from the text; logs show them instead of the text."""
        return blake2b(self.text.encode(), digest_size=6).hexdigest()

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The text split at white space; punctuation stays with its word."""
        return tuple(self.text.split())


def edit_distance(before: Prompt, after: Prompt) -> int:
    """The number of words inserted, deleted or replaced between two prompts (Levenshtein distance; symmetric).

    The paper bounds this number by the step size. White space does not count. O(n·m) in the numbers of words.
    """
    return Levenshtein.distance(before.words, after.words)
