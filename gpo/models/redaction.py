"""Removing secrets from texts of models and endpoints."""

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
"""Shorter secrets may be ordinary words, which must not disappear from texts."""


_ESCAPED = re.compile(r"[\\%&]")


class Redaction:
    r"""Masks secrets wherever they occur: unchanged, or escaped as in JSON, Python, HTML or a URL.

    Programs escape different characters (``\/`` in PHP's JSON, ``\u002B`` in .NET's), and one may quote another. So
    each character matches in every form.

    Args:
        secrets: printable ASCII.
    """

    def __init__(self, *secrets: str) -> None:
        self.secrets = tuple(sorted(set(secrets), key=len, reverse=True))  # a secret may contain another
        self._in_messages = _pattern(self.secrets, _SHORTEST_IN_MESSAGES)
        self._in_replies = _pattern(self.secrets, _SHORTEST_IN_REPLIES)

    def message(self, text: str) -> str:
        """Mask the secrets in an error message."""
        return self._masked(text, self._in_messages, _SHORTEST_IN_MESSAGES)

    def reply(self, text: str) -> str:
        """Mask the secrets in a model's reply; one below 12 characters stays, since it may be an ordinary word.

        Args:
            text: decoded. In the bytes of a body, the match could include a quotation mark of the JSON.
        """
        return self._masked(text, self._in_replies, _SHORTEST_IN_REPLIES)

    def _masked(self, text: str, pattern: re.Pattern[str] | None, shortest: int) -> str:
        if pattern is None:
            return text
        # Most texts contain no escapes, and replacing is 50 times faster than the pattern.
        if _ESCAPED.search(text):
            return pattern.sub(MASK, text)
        for secret in self.secrets:
            if len(secret) >= shortest:
                text = text.replace(secret, MASK)
        return text


def _pattern(secrets: Sequence[str], shortest: int) -> re.Pattern[str] | None:
    patterns = [
        "".join(
            _backslashes() if character == "\\" else _written(character) * len(list(same))
            for character, same in groupby(secret)
        )
        for secret in secrets
        if len(secret) >= shortest
    ]
    return re.compile("|".join(patterns)) if patterns else None


def _written(character: str) -> str:
    """A pattern for all forms of a character other than a backslash."""
    forms = f"{re.escape(character)}|u{_hexadecimal(character, 4)}|{_encoded(character)}"
    return f"(?:{forms}|{_ROW}(?:{forms}))"


def _backslashes() -> str:
    """A pattern for a row of backslashes, whose original number is unknown."""
    code, encoded = f"u{_hexadecimal(_BACKSLASH, 4)}", _encoded(_BACKSLASH)
    return rf"(?:{_ROW}(?:{code})?+|{encoded}){{1,8}}+"


def _encoded(character: str) -> str:
    """A pattern for a character that a URL or HTML escapes, once or repeatedly."""
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
"""Backslashes before a character: JSON within JSON doubles them. Without a bound, a long row would take too long."""
