"""Taking a secret out of what others say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from html.entities import html5
from itertools import groupby

MASK = "***"

_SHORTEST_IN_MESSAGES = 6
_SHORTEST_IN_REPLIES = 12
"""A shorter secret is a word like any other: taking it out would change what is said."""


_ESCAPED = re.compile(r"[\\%&]")


class Redaction:
    r"""Masks a secret wherever it stands: as it is, or as JSON, Python, HTML or a URL would write it.

    Each writes its characters in a way of its own (``\/`` in PHP's JSON, ``\u002B`` in .NET's), and one may quote
    another; so each character is known in every form by itself.

    Args:
        secret: printable ASCII.
    """

    def __init__(self, secret: str) -> None:
        pattern = "".join(
            _backslashes() if character == "\\" else _written(character) * len(list(same))
            for character, same in groupby(secret)
        )
        self._secret = secret
        self._in_messages = re.compile(pattern) if len(secret) >= _SHORTEST_IN_MESSAGES else None
        self._in_replies = re.compile(pattern) if len(secret) >= _SHORTEST_IN_REPLIES else None

    def message(self, text: str) -> str:
        """An error message without the secret."""
        return self._masked(text, self._in_messages)

    def reply(self, text: str) -> str:
        """What a model said without the secret; a secret that may be a mere word, of below 12 characters, stays.

        Args:
            text: decoded. Masked in the bytes of a body, a secret could take a quotation mark of JSON's along.
        """
        return self._masked(text, self._in_replies)

    def _masked(self, text: str, pattern: re.Pattern[str] | None) -> str:
        if pattern is None:
            return text
        # Most texts escape nothing, and this takes a fiftieth of the time.
        return pattern.sub(MASK, text) if _ESCAPED.search(text) else text.replace(self._secret, MASK)


def _written(character: str) -> str:
    """A pattern of all forms of a character that is no backslash."""
    forms = f"{re.escape(character)}|u{_hexadecimal(character, 4)}|{_encoded(character)}"
    return f"(?:{forms}|{_ROW}(?:{forms}))"


def _backslashes() -> str:
    """Likewise of a row of backslashes, of which nobody knows how many it was."""
    code, encoded = f"u{_hexadecimal(_BACKSLASH, 4)}", _encoded(_BACKSLASH)
    return rf"(?:{_ROW}(?:{code})?+|{encoded}){{1,8}}+"


def _encoded(character: str) -> str:
    """A pattern of what a URL or HTML makes of a character, once or more."""
    code = _hexadecimal(character, 2)
    entities = "|".join([f"#0*+{ord(character)};", f"#[xX]0*+{code};", *_names()[character]])
    return f"%(?:25)*{code}|&(?:amp;)*(?:{entities})"


@cache
def _names() -> Mapping[str, Sequence[str]]:
    names = defaultdict[str, list[str]](list)
    for name, character in html5.items():
        if name.endswith(";"):
            names[character].append(name)
    return names


def _hexadecimal(character: str, digits: int) -> str:
    return "".join(
        f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{ord(character):0{digits}x}"
    )


_BACKSLASH = "\\"
_ROW = r"\\{1,16}+"
"""Before a character: JSON within JSON doubles them each time. Without a bound, a long row would take ages."""
