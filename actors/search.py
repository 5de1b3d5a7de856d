"""What an actor runs and reports. A separate module, so that importing it loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpo.checkpoint import Checkpoint
    from gpo.optimizer import GPO
    from gpo.prompt import Prompt


class Phase(StrEnum):
    """What a trajectory is doing."""

    INITIAL = "initial prompt"
    PROPOSING = "proposing"
    EVALUATING = "evaluating"
    CONFIRMING = "confirming"
    TESTING = "testing"
    DONE = "done"


@dataclass(frozen=True, slots=True, order=True)
class SearchKey:
    """Identifies a trajectory within a run."""

    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task}/{self.seed}"


@dataclass(frozen=True, slots=True)
class Record:
    """Which answers of a search are recorded: those of all prompts, or those of chosen ones.

    Attributes:
        writes_all: whether those of all prompts are.
        max_bytes: bound on all files of the search.
    """

    writes_all: bool
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Search:
    """All that an actor needs to run one trajectory. Pickles, because none of its connections is open yet.

    Attributes:
        is_tested: whether the initial and the best prompt are scored on ``test`` in the end.
        record: which answers are recorded; ``None`` for none.
        population: distinguishes concurrent trajectories of the same task and seed when the limiter shares calls.
    """

    key: SearchKey
    initial: Prompt
    gpo: GPO
    is_tested: bool = True
    population: str = ""
    record: Record | None = None

    @property
    def caller(self) -> str:
        """The caller that its model calls are attributed to."""
        return f"{self.population}/{self.key}".removeprefix("/")


@dataclass(frozen=True, slots=True)
class Update:
    """What a trajectory reports.

    Attributes:
        phase: the phase that begins or continues now.
        evaluated: prompts of the current step or phase whose score is final.
        to_evaluate: all prompts of the current step or phase, an upper bound while some are still being proposed; 0
            if none is known yet.
        checkpoint: the checkpoint that was just saved, if any.
        error: why the trajectory ended early, if it did.
    """

    key: SearchKey
    phase: Phase
    evaluated: int = 0
    to_evaluate: int = 0
    checkpoint: Checkpoint | None = None
    error: str | None = None
