"""What every scorer can do."""

from __future__ import annotations

from typing import Protocol

from gpo.data.example import Example


class Scorer(Protocol):
    """Judges answers of one kind."""

    def score(self, answer: str, example: Example) -> float:
        """How right the answer is, in [0, 1].

        Never raises for any answer: one from which nothing can be read scores 0. Only a function of the user's own
        may fail, and that is no verdict.

        Raises:
            EvaluationError: such a function failed.
        """
        ...

    def follow_up(self, example: Example) -> str | None:
        """The question of a second round, which asks for the bare answer; ``None`` where a free text is the answer."""
        ...
