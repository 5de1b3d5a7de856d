"""A prompt, and the distance between prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from gpo.runtime.process import PicklesFieldsOnly

PLACEHOLDER = re.compile(r"\{\{([^{}\n]*)\}\}")
"""A placeholder of a template, such as ``{{ ticket }}``; the group is the expression in it."""
HEADING = re.compile(r"\[\[(system|user)\]\]")
"""The heading of a message of a template: ``[[system]]`` or ``[[user]]``."""
ATOM = r"\{\{[^{}\n]*\}\}|\[\[(?:system|user)\]\]"
"""A regular expression, without groups, for what counts as one word: a placeholder or a heading."""
_PART = re.compile(r"(?m)^\[\[([A-Za-z_]\w*)\]\][ \t]*$")
"""The heading of a part of a prompt with several parts, on a line of its own."""
_WORD = re.compile(rf"{ATOM}|(?:(?!{ATOM})\S)+")


def placeholder(expression: str) -> str:
    """A placeholder as it is compared: one space at either end, and between the parts of the expression."""
    return f"{{{{ {' '.join(expression.split())} }}}}"


def compared(word: str) -> str:
    """A word as it is compared: white space in a placeholder does not count."""
    found = PLACEHOLDER.fullmatch(word)
    return placeholder(found[1]) if found else word


def joined_parts(parts: Mapping[str, str]) -> str:
    """The text of a prompt that consists of several named prompts; see ``parts_of``."""
    return "\n\n".join(f"[[{name}]]\n{text.strip()}" for name, text in parts.items())


def parts_of(text: str) -> dict[str, str]:
    """The named prompts that a text consists of, in order; empty if it has no headings, or text before the first."""
    before, *pieces = _PART.split(text)
    if before.strip() or len(set(pieces[::2])) < len(pieces[::2]):
        return {}
    return {name: body.strip() for name, body in zip(pieces[::2], pieces[1::2], strict=True)}


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
        """The text split at white space; punctuation stays with its word.

        A placeholder or a heading of a template is a word of its own. White space in a placeholder does not count.
        """
        if "{{" not in self.text and "[[" not in self.text:  # most prompts
            return tuple(self.text.split())
        return tuple(map(compared, _WORD.findall(self.text)))


def edit_distance(before: Prompt, after: Prompt) -> int:
    """The number of words inserted, deleted or replaced between two prompts (Levenshtein distance; symmetric).

    The paper bounds this number by the step size. White space does not count. O(n·m) in the numbers of words.
    """
    from rapidfuzz.distance import Levenshtein  # only a search measures distances

    return Levenshtein.distance(before.words, after.words)
