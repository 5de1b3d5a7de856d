"""The code that pages of the documentation show."""

from __future__ import annotations

import re
from textwrap import dedent

from tests.paths import ROOT


def blocks(page: str, *languages: str) -> list[str]:
    """The code blocks of a page in these languages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [dedent(content) for _, language, content in found if language in languages]


def commands(page: str, beginning: str = "") -> list[str]:
    """The commands of a page that begin like this, in order."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line.startswith(beginning) and line.strip()]


def files(page: str) -> dict[str, str]:
    """The files of a page: blocks that begin with a comment with a name."""
    found = [re.match(r"# (\S+\.\w+)\n", block) for block in blocks(page, "yaml", "python")]
    return {match[1]: match.string for match in found if match}
