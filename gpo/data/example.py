"""One labelled example of a task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """An input and the answers that count as right.

    ``targets`` has at least one entry; several are alternatives (the references of a text generation task).
    """

    input: str
    targets: tuple[str, ...]

    @property
    def target(self) -> str:
        """The first of the right answers."""
        return self.targets[0]
