"""Takes apart what the program asks an optimizer model: titled sections, and the scored prompts in them."""

from __future__ import annotations

import re

HISTORY, HISTORY_WITHOUT_SCORES = "Earlier prompts and their scores, worst first", "Earlier prompts"
CURRENT, REFLECTION, SUMMARY = "Current prompt", "Reflection on the current prompt", "What the search has taught so far"
INSTRUCTIONS = "What to do"
EXAMINED, FAILURES, TO_REFLECT_ON = "Examined prompt", "Inputs that it failed on", "What to reflect on"
NOTES, BEFORE, REFLECTION_BEFORE = "Notes so far", "Prompt before the last step", "Reflection on that prompt"
TRIED, TO_NOTE = "Prompts that the last step tried, worst first", "What to note"

# These texts are those of ``gpo.strategies`` (``meta_prompt``, ``reflection`` and ``summary``), and change with them.
_TITLES = (
    "Examples of the task", HISTORY, HISTORY_WITHOUT_SCORES, CURRENT, REFLECTION, SUMMARY, INSTRUCTIONS,
    EXAMINED, FAILURES, TO_REFLECT_ON, NOTES, BEFORE, REFLECTION_BEFORE, TRIED, TO_NOTE,
)  # fmt: skip
# Only these: a prompt may have sections of its own.
_TITLE = re.compile(rf"^## ({'|'.join(map(re.escape, _TITLES))})$", re.MULTILINE)
_SHOWN = re.compile(r"Prompt: (.*?)(?:\nScore: (-?[\d.]+))?\s*\Z", re.DOTALL)
_SCORED = re.compile(r"^Prompt: (.*?)\nScore: (-?[\d.]+)$", re.DOTALL | re.MULTILINE)


def sections(request: str) -> dict[str, str]:
    """Title → content; empty for what is not a request of the program's."""
    if "## " not in request:  # nearly always, and a regular expression is slow to say so
        return {}
    _, *parts = _TITLE.split(request)
    return {title: content.strip() for title, content in zip(parts[::2], parts[1::2], strict=True)}


def shown_prompt(content: str) -> str:
    """The prompt that a section shows, with or without its score; empty where it shows none."""
    found = _SHOWN.match(content)
    return found[1].strip() if found else ""


def scored_prompts(*contents: str) -> tuple[tuple[str, float], ...]:
    """Every prompt that sections show with a score, in order."""
    found = (match for content in contents for match in _SCORED.findall(content))
    return tuple((prompt.strip(), float(score)) for prompt, score in found)
