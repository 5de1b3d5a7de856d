"""The meta-prompt: what the optimizer model is told, and how its reply is read.

The wording is this project's own. A meta-prompt is a strategy: ``full`` explains the task to a capable model,
``compact`` shows a small model by example what to do. Both ask for the new prompt between ``<START>`` and ``<END>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gpo.answering import Position
from gpo.errors import MalformedReply
from gpo.examples import Example
from gpo.models import Completion, Message
from gpo.prompt import Prompt
from gpo.refinement import Generation, Refinement
from gpo.text import without_controls
from gpo.trajectory import Candidate

START, END = "<START>", "<END>"

_START = re.compile(r"<START>", re.IGNORECASE)
_END = re.compile(r"</?END>|</START>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:START|END)>", re.IGNORECASE)
# One pair of marks around the whole. A quoted word at either end is no such pair, an apostrophe in a word no mark.
_QUOTED = re.compile(
    r"""\s*(?:"([^"]*)"|“([^“”]*)”|'((?:[^']|(?<=\w)'(?=\w))*)'|```(?:\w*\n)?([^`]*)```|`([^`]*)`)\s*"""
)
_BLANK_LINE = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Direction:
    """Everything that may go into a meta-prompt.

    Attributes:
        current: the prompt to improve.
        neighbours: past prompts with their scores, most relevant last.
        step_size: words that may change; ``None`` is no bound.
        exemplars: train examples that show the task.
        position: where the prompt will stand.
    """

    current: Candidate
    neighbours: Sequence[Candidate]
    step_size: int | None
    exemplars: Sequence[Example]
    position: Position


class MetaPrompt(Protocol):
    """Turns a direction into a conversation, and a reply into a prompt."""

    def messages(self, direction: Direction) -> list[Message]:
        """The conversation whose next turn holds the new prompt."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which the optimizer model shall stop generating."""
        ...


def parse_reply(reply: Completion, *, max_words: int = 1000) -> Prompt:
    """The prompt in a reply.

    What stands between the last ``<START>`` that anything follows and the ``<END>`` after it (or the end of the reply,
    where the model stopped there by itself), without quotation marks or a code fence around it. A reply without tags
    counts as the prompt where it is a single paragraph. The prompt is always valid Unicode without control characters.

    Raises:
        MalformedReply: no prompt, one cut off at the token limit, or one of more than ``max_words`` words.
    """
    # An emoji cut in two arrives as half a surrogate pair, which could be neither hashed nor saved.
    text = without_controls(reply.text.encode(errors="replace").decode())
    # Where the opening tag was put into the model's mouth, or ``stop`` took the closing one, only one tag is left.
    untagged, *tagged = _START.split(text)
    body = next((part for part in reversed(tagged) if part.strip()), "") if tagged else untagged
    found, *after_end = _END.split(body, maxsplit=1)
    if not tagged and _BLANK_LINE.search(found.strip()):
        raise MalformedReply("the reply has no <START> … <END> and is longer than one paragraph")
    if reply.truncated and not after_end:
        raise MalformedReply("the reply was cut off at max_tokens before <END>")
    quoted = _QUOTED.fullmatch(found)
    found = (found if quoted is None else quoted[quoted.lastindex or 0]).strip()
    if not found:
        raise MalformedReply("the reply holds no prompt")
    if len(found.split()) > max_words:
        raise MalformedReply(f"the prompt in the reply is longer than {max_words} words")
    return Prompt(found)


_PLACES = {
    Position.QUESTION_END: "directly after the input",
    Position.QUESTION_BEGIN: "directly before the input",
    Position.BEFORE_QUESTION: "above the input, set apart by an empty line",
    Position.ANSWER_BEGIN: "at the beginning of the answer",
    Position.SYSTEM: "in the system message, apart from the input",
}


def _percent(candidate: Candidate) -> str:
    return f"{100 * candidate.score.mean:.1f}"


def neutral(text: str) -> str:
    """A text without the tags that mark the reply: a prompt or an example must not look like one."""
    # A space in its place: the two sides of a tag that is taken out could join to another one.
    return _TAG.sub(" ", text)


@dataclass(frozen=True, slots=True)
class FullMetaPrompt:
    """One instruction in titled sections, for models that follow long instructions.

    Scores are shown as percentages, and the text says so.

    Attributes:
        refinement: what the model is to do.
    """

    refinement: Refinement = field(default_factory=Generation)

    @property
    def stop(self) -> tuple[str, ...]:
        return ()

    def messages(self, direction: Direction) -> list[Message]:
        sections = (
            self._assignment(direction),
            self._exemplars(direction),
            self._history(direction),
            self._current(direction),
            self._instructions(direction),
        )
        return [{"role": "user", "content": "\n\n".join(section for section in sections if section)}]

    @staticmethod
    def _assignment(direction: Direction) -> str:
        return (
            "You improve prompts. A language model receives a prompt together with one input at a time and has to "
            f"answer correctly; the prompt stands {_PLACES[direction.position]}. A prompt's score is the percentage of "
            "held-out inputs answered correctly with it, from 0 (none) to 100 (all). Your aim is a prompt with a "
            "higher score."
        )

    @staticmethod
    def _exemplars(direction: Direction) -> str:
        if not direction.exemplars:
            return ""
        shown = "\n\n".join(
            f"Input: {neutral(example.input)}\nCorrect answer: {neutral(example.target)}"
            for example in direction.exemplars
        )
        return f"## Examples of the task\n\n{shown}"

    @staticmethod
    def _history(direction: Direction) -> str:
        if not direction.neighbours:
            return ""
        ascending = sorted(direction.neighbours, key=lambda candidate: candidate.score.mean)
        shown = "\n\n".join(
            f"Prompt: {neutral(candidate.prompt.text)}\nScore: {_percent(candidate)}" for candidate in ascending
        )
        return f"## Earlier prompts and their scores, worst first\n\n{shown}"

    @staticmethod
    def _current(direction: Direction) -> str:
        current = direction.current
        return f"## Current prompt\n\nPrompt: {neutral(current.prompt.text)}\nScore: {_percent(current)}"

    def _instructions(self, direction: Direction) -> str:
        return (
            f"## What to do\n\n{self.refinement.instruction(direction.step_size)} It must work for every input of the "
            "task, so do not put a particular input or answer into it, and do not repeat a prompt shown above. Write "
            f"the new prompt between {START} and {END}, and nothing else."
        )
