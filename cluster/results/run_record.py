"""The state of a run: its trajectories, how far each is, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from actors.search import Phase, SearchKey, Update
from cluster.results.averages import Family
from gpo.checkpoint import Checkpoint
from gpo.limits.messages import Spent
from gpo.models.protocol import Usage
from gpo.strategies.stopping import StoppingRule
from gpo.trajectory import Spending, Step

Status = Literal["pending", "running", "completed", "interrupted", "budget_exhausted", "failed"]


@dataclass(slots=True)
class RunRecord:
    """What is known of a run. The run loop keeps it up to date; readers rebuild it from the run's folder.

    Attributes:
        started_at: seconds since 1970.
        began: ``time.monotonic()`` at which this attempt began; ``None`` if it begins when the run loop does.
        wall_s: seconds of work, over all attempts.
        num_steps: trajectory → the steps that it takes at most; empty where that is unknown.
        stopping: when a trajectory ends before it has taken them.
        is_tested: whether a trajectory ends by scoring its initial and best prompts on ``test``.
        checkpoints: the last one of each trajectory that has one.
        errors: why a trajectory ended early.
        ended_by: which budget is exhausted, in words; empty while none is.
        reported: cost of all answered calls, as the limiter counts it. It includes calls that no checkpoint holds yet.
        families: the tasks that are averaged together; the last one is all tasks.
        config: the run's configuration as YAML; may be empty.
    """

    run_id: str
    started_at: float
    status: Status = "pending"
    finished_at: float | None = None
    began: float | None = None
    wall_s: float = 0.0
    keys: tuple[SearchKey, ...] = ()
    num_steps: Mapping[SearchKey, int] = field(default_factory=dict[SearchKey, int])
    stopping: StoppingRule = field(default_factory=StoppingRule)
    is_tested: bool = True
    checkpoints: dict[SearchKey, Checkpoint] = field(default_factory=dict[SearchKey, Checkpoint])
    errors: dict[SearchKey, str] = field(default_factory=dict[SearchKey, str])
    ended_by: str = ""
    reported: Spent = field(default_factory=Spent)
    families: tuple[Family, ...] = ()
    config: str = ""

    def receive(self, update: Update) -> Sequence[Step]:
        """Record an update; returns the steps that are new."""
        if update.phase is Phase.DONE and update.error:
            self.errors[update.key] = update.error
        if update.checkpoint is None:
            return ()
        known = self.steps_taken(update.key)
        self.checkpoints[update.key] = update.checkpoint
        return update.checkpoint.trajectory.steps[known:]

    def steps_taken(self, key: SearchKey) -> int:
        """Steps that a trajectory has taken so far."""
        checkpoint = self.checkpoints.get(key)
        return len(checkpoint.trajectory.steps) if checkpoint else 0

    def stopped_by(self, key: SearchKey) -> str | None:
        """Why the stopping rule has ended a trajectory, in words; ``None`` if it has not."""
        checkpoint = self.checkpoints.get(key)
        if checkpoint is None or 0 < self.num_steps.get(key, 0) <= self.steps_taken(key):
            return None
        return self.stopping.reason(checkpoint.trajectory)

    def planned_steps(self, key: SearchKey) -> int | None:
        """Steps that a trajectory takes in all; ``None`` where that is unknown."""
        return self.steps_taken(key) if self.stopped_by(key) else self.num_steps.get(key)

    def is_done(self, key: SearchKey) -> bool:
        """Whether a trajectory took all its steps or was stopped, and where ``is_tested``, has its ``test`` scores."""
        checkpoint = self.checkpoints.get(key)
        if checkpoint is None or self.steps_taken(key) < (self.planned_steps(key) or 0):
            return False
        trajectory = checkpoint.trajectory
        if not trajectory.is_confirmed:
            return False
        return not self.is_tested or {trajectory.initial.prompt.id, trajectory.best.prompt.id} <= set(checkpoint.test)

    @property
    def is_complete(self) -> bool:
        """Whether every trajectory is done."""
        return all(self.is_done(key) for key in self.keys)

    @property
    def spending(self) -> Spending:
        """Cost of all trajectories, evaluations on ``test`` included."""
        return sum((checkpoint.spending for checkpoint in self.checkpoints.values()), start=Spending())

    @property
    def spent(self) -> Spent:
        """The amounts that budgets limit."""
        usage = self.spending.task + self.spending.optimizer + self.spending.judge
        accounted = Spent(usage.requests, usage.prompt_tokens + usage.completion_tokens, usage.cost_usd)
        return max(accounted, self.reported, key=lambda spent: spent.calls)

    def usage_by_role(self) -> dict[str, Usage]:
        """Role → usage of its model; see ``by_role``."""
        return by_role(self.spending)

    def best_by_task(self) -> dict[str, tuple[SearchKey, Checkpoint]]:
        """Task → the trajectory whose best prompt has the highest ``val`` mean; of equals, the lowest seed."""
        best: dict[str, tuple[SearchKey, Checkpoint]] = {}
        for key in sorted(self.checkpoints):
            checkpoint = self.checkpoints[key]
            known = best.get(key.task)
            if known is None or checkpoint.trajectory.best.score.mean > known[1].trajectory.best.score.mean:
                best[key.task] = (key, checkpoint)
        return best


def by_role(spending: Spending) -> dict[str, Usage]:
    """Role → usage of its model; the judge only where one was called."""
    judge = {"judge": spending.judge} if spending.judge != Usage() else {}
    return {"task": spending.task, "optimizer": spending.optimizer, **judge}
