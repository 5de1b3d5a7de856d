"""Text from models and endpoints, made safe to show."""

from __future__ import annotations

import re

# C0 and C1 controls but tab and line feed: they move a terminal's cursor, colour it, or set its title.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_controls(text: str) -> str:
    """The text without control characters; tabs and line feeds stay.

    Half of a character, as where an emoji was cut in two, becomes ``?``: it could be neither shown, hashed nor saved.
    """
    return _CONTROLS.sub("", text).encode(errors="replace").decode()
