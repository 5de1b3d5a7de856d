"""Update method: how the optimizer model should change the current prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Refinement(Protocol):
    """Writes the instruction for the optimizer model."""

    def instruction(self, evidence: str, step_size: int | None) -> str:
        """One or more sentences.

        Args:
            evidence: a sentence about what to learn from; may be empty.
            step_size: number of words that may change; ``None`` is no bound.
        """
        ...


def _bound(step_size: int | None) -> str:
    if step_size is None:
        return ""
    counting = "inserting, deleting or replacing a word counts as one change"
    return f"Change at most {step_size} words of the current prompt: {counting}."


def _sentences(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


@dataclass(frozen=True, slots=True)
class Generation:
    """Write a new prompt that follows the direction. GPO's own choice."""

    def instruction(self, evidence: str, step_size: int | None) -> str:
        aim = "carries the current prompt further in that direction" if evidence else "serves the task better"
        return _sentences(evidence, f"Write one new prompt that {aim}.", _bound(step_size))


@dataclass(frozen=True, slots=True)
class Editing:
    """Edit some words of the current prompt and keep the rest."""

    def instruction(self, evidence: str, step_size: int | None) -> str:
        return _sentences(
            evidence,
            "Find the words of the current prompt that keep it from working better, and edit just these words.",
            _bound(step_size),
            "Leave the rest as it stands.",
        )


@dataclass(frozen=True, slots=True)
class Paraphrase:
    """Rewrite the prompt with the same meaning: a sample near the current prompt, without a direction."""

    def instruction(self, evidence: str, step_size: int | None) -> str:
        return _sentences(
            "Write one new prompt that means the same as the current prompt, in other words.", _bound(step_size)
        )
