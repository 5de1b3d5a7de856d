"""Building blocks of the texts for the optimizer model: titled sections with prompts, scores and examples."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpo.data.example import Example
from gpo.trajectory import Candidate, Direction, Failure

START, END = "<START>", "<END>"
"""The tags around a new prompt in a reply."""

_TAG = re.compile(r"</?(?:START|END)>", re.IGNORECASE)
# Other titles may occur in a prompt.
_TITLES = (
    "What to (?:do|note|reflect on)|What the search has taught|Examples of the task|Earlier prompts|Current prompt|"
    "Goal of the task|Examined prompt|"
    "Inputs that it failed on|Wrong answers|Reflection on|Notes so far|Prompts? (?:before|after|that)"
)
_LABELS = (
    "Prompt|Goal|Examples|Notes|Earlier prompts|Prompt to improve|Wrong answers|Score|Reflection|Input|Correct answer|"
    "The model's answer|Why it is wrong"
)
_OURS = re.compile(rf"^(?=##[ \t]+(?:{_TITLES})|(?:{_LABELS}):)", re.MULTILINE | re.IGNORECASE)
_PROMPT_TAG = re.compile(r"</?prompt\b[^<>]*>", re.IGNORECASE)
# Scores are shown with one decimal, or as an attribute.
_SCORE = r"(?:score|accuracy)\s*[:=]\s*\"?\d+(?:\.\d+)?\s*%?\"?"
_PARTS = re.compile(
    rf"\b(?:score|accuracy)\s*[:=]\s*\"?\d+\.\d|accuracy\s*[:=]\s*\"?\d+|^\s*{_SCORE}\s*$|\bscore\s*[:=]\s*\d{{2,}}\s*$|"
    rf"<prompt accuracy|<example><input>|<wrong><input>|<answered>|^##[ \t]+(?:{_TITLES})|"
    r"^(?:Prompt to improve|Earlier prompts|Wrong answers|Correct answer|The model's answer|Why it is wrong):|"
    r"Write a better prompt, unlike those above|^Write an instruction for this task\b.*:",
    re.MULTILINE | re.IGNORECASE,
)
_LABEL = re.compile(r"\s*(?:#+\s*)?(?:(?:new|better|improved|current)\s+)?prompt:\s*(?=(?-i:[^\sa-z]))", re.IGNORECASE)
_FRAME = re.compile(r"\s*<prompt\b[^<>]*>|</prompt>\s*$", re.IGNORECASE)
_SCORE_LINE = re.compile(rf"\s*\n\s*{_SCORE}\s*$", re.IGNORECASE)


def parts_of_a_request(text: str) -> set[str]:
    """What only a request to the optimizer model has: scores, titles and tags, in lower case; digits count as equal."""
    return {re.sub(r"\d+", "0", found[0].strip().lower()) for found in _PARTS.finditer(text)}


def without_frame(text: str) -> str:
    """A prompt without what a model copies around it: the label "Prompt:", tags, and a last line with a score."""
    if found := _LABEL.match(text):
        text = text[found.end() :]
    if found := _FRAME.match(text):
        text = text[found.end() :]
    return _SCORE_LINE.sub("", _FRAME.sub("", text) if text.rstrip().endswith("</prompt>") else text).strip()


def without_prompt_tags(text: str) -> str:
    """A text in which no tag ends, or begins, a prompt that is shown in such tags."""
    return _PROMPT_TAG.sub(" ", text)


def neutral(text: str) -> str:
    """Neutralize a prompt or an example, so that it cannot be mistaken for a part of the request.

    Tags that mark the reply are replaced by a space. Lines that look like the title of a section, a prompt or a score
    are indented by two spaces.
    """
    # Not by nothing: the text around a removed tag could form another tag.
    return _OURS.sub("  ", _TAG.sub(" ", text))


def titled(title: str, content: str) -> str:
    """A section; empty if it has no content."""
    return f"## {title}\n\n{content}" if content else ""


def joined(*sections: str) -> str:
    """Join the nonempty sections with empty lines."""
    return "\n\n".join(section for section in sections if section)


def prompt_line(candidate: Candidate) -> str:
    """``Prompt: …``."""
    return f"Prompt: {neutral(candidate.prompt.text)}"


def scored_lines(candidate: Candidate) -> str:
    """``Prompt: …`` and, below it, ``Score: …``: the mean on ``val`` as a percentage, from 0 to 100."""
    return f"{prompt_line(candidate)}\nScore: {100 * candidate.score.mean:.1f}"


def shown(candidate: Candidate, *, score: bool) -> str:
    """The prompt with or without its score."""
    return scored_lines(candidate) if score else prompt_line(candidate)


def ordered(candidates: Sequence[Candidate], *, by_score: bool) -> list[Candidate]:
    """The candidates, worst first or in the given order."""
    return sorted(candidates, key=lambda candidate: candidate.score.mean) if by_score else list(candidates)


def example_lines(example: Example) -> str:
    """An example's input and its right answer."""
    return f"Input: {neutral(example.input)}\nCorrect answer: {neutral(example.target)}"


def failure_lines(failure: Failure) -> str:
    """An example that the prompt failed on: its input, right answer, the model's answer and, if known, the reason."""
    lines = [
        f"Input: {neutral(failure.input)}",
        f"Correct answer: {neutral(failure.target)}",
        f"The model's answer: {neutral(failure.answer)}",
    ]
    return "\n".join([*lines, f"Why it is wrong: {neutral(failure.reason)}"] if failure.reason else lines)


def unexplained(direction: Direction) -> tuple[Failure, ...]:
    """The failures to show in a meta-prompt: all, unless a reflection explains them."""
    return () if direction.reflection else direction.failures


SCALE = (
    "A prompt's score is the percentage of held-out inputs answered correctly with it (an answer may be partly "
    "correct), from 0 (none) to 100 (all)."
)
"""Included wherever scores are shown."""
