"""Making text from models and endpoints safe to show."""

from __future__ import annotations

import re

# C0 and C1 controls except tab and line feed: they move a terminal's cursor, colour it, or set its title.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_GAP = " […] "


def without_controls(text: str) -> str:
    """The text without control characters except tabs and line feeds.

    Unpaired surrogates, such as half an emoji, become ``?``, since they can be neither shown, hashed nor saved.
    """
    return _CONTROLS.sub("", text).encode(errors="replace").decode()


def one_line(text: str, max_characters: int) -> str:
    """The text on one line, without control characters, and without its middle if it is too long."""
    return abridged(" ".join(without_controls(text).split()), max_characters)


def first_line(said: object) -> str:
    """The first line of a text or of an error's message; the name of its class if the error has none."""
    return _lines(said)[0]


def last_line(said: object) -> str:
    """The last line of a text or of an error's message; the name of its class if the error has none."""
    return _lines(said)[-1]


def _lines(said: object) -> list[str]:
    text = str(said).strip() or (type(said).__name__ if isinstance(said, BaseException) else "")
    return text.splitlines() or [""]


def abridged(text: str, max_characters: int) -> str:
    """The text, or its beginning and its end around `` […] ``; then exactly ``max_characters`` ≥ 5 long."""
    if len(text) <= max_characters:
        return text
    kept = max_characters - len(_GAP)
    return f"{text[: kept - kept // 2]}{_GAP}{text[len(text) - kept // 2 :]}"
