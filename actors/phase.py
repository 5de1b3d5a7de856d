"""What a trajectory is busy with; on its own, so that whoever only names it loads nothing else."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What a trajectory is busy with."""

    INITIAL = "initial prompt"
    PROPOSING = "proposing"
    EVALUATING = "evaluating"
    TESTING = "testing"
    DONE = "done"
