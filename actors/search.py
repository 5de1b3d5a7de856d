"""What a trajectory is busy with; on its own, so that whoever only names it loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gpo.checkpoint import Checkpoint
from gpo.optimizer import GPO
from gpo.prompt import Prompt


class Phase(StrEnum):
    """What a trajectory is busy with."""

    INITIAL = "initial prompt"
    PROPOSING = "proposing"
    EVALUATING = "evaluating"
    TESTING = "testing"
    DONE = "done"


@dataclass(frozen=True, slots=True, order=True)
class SearchKey:
    """Names a trajectory within a run."""

    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task}/{self.seed}"


@dataclass(frozen=True, slots=True)
class Search:
    """What an actor needs to carry one trajectory to its end. Pickles: no connection in it is open yet.

    Attributes:
        is_tested: whether initial and best prompt are scored on ``test`` at its end.
        population: tells trajectories of one task and seed apart that run side by side, when calls are shared out.
    """

    key: SearchKey
    initial: Prompt
    gpo: GPO
    is_tested: bool = True
    population: str = ""

    @property
    def caller(self) -> str:
        """For whom its calls are made."""
        return f"{self.population}/{self.key}".removeprefix("/")


@dataclass(frozen=True, slots=True)
class Update:
    """News of one trajectory.

    Attributes:
        key: which.
        phase: what it does from now on.
        evaluated, to_evaluate: prompts of the step, or of the phase outside of steps, whose score is final, and all of
            them; at most so many, while some are still proposed. 0 of 0 where none is known yet.
        checkpoint: what was saved just now; ``None`` where nothing new was.
        error: why it came to its end early.
    """

    key: SearchKey
    phase: Phase
    evaluated: int = 0
    to_evaluate: int = 0
    checkpoint: Checkpoint | None = None
    error: str | None = None
