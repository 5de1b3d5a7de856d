"""Update method: what the optimizer model is to do with the current prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Refinement(Protocol):
    """Words the task of the optimizer model."""

    def instruction(self, step_size: int | None) -> str:
        """One or more sentences; they state ``step_size``, in words that may change, where there is a bound."""
        ...


_COUNTING = "inserting, deleting or replacing a word counts as one change."


@dataclass(frozen=True, slots=True)
class Generation:
    """Write a new prompt that follows the direction. GPO's own choice."""

    def instruction(self, step_size: int | None) -> str:
        bound = f" Change at most {step_size} words of the current prompt: {_COUNTING}" if step_size is not None else ""
        return (
            "Look at what separates prompts with high scores from those with low ones, and write one new prompt that "
            f"carries the current prompt further in that direction.{bound}"
        )


@dataclass(frozen=True, slots=True)
class Editing:
    """Change the current prompt in place, and leave the rest of it as it stands."""

    def instruction(self, step_size: int | None) -> str:
        bound = f" Change at most {step_size} words of it: {_COUNTING}" if step_size is not None else ""
        return (
            "Find the words of the current prompt that keep its score low, judging by what separates prompts with "
            f"high scores from those with low ones, and edit just these words.{bound} Leave the rest as it stands."
        )
