"""The gauges of a sweep: its trials by state, the best objective, and the budget that is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from actors.metrics.catalogue import BEST_OBJECTIVE, BUDGET_LEFT, RUN_ACTIVE, RUN_PROGRESS, RUN_STARTED, TRIALS
from cluster.config.run import BudgetConfig
from cluster.monitoring.metrics_view import budget_left
from cluster.monitoring.run_metrics import Metrics
from cluster.sweep.study import best_trial
from gpo.limits.messages import Spent

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""Optuna's state → its name in metrics and in ``sweep.json``."""


class SweepMetrics:
    """Sets the gauges of a sweep. Its calls, tokens and cost are counted as those of a run.

    Trials and the budget are those of the whole study: every process that works on the study exports the same values.
    """

    def __init__(self, metrics: Metrics, budget: BudgetConfig) -> None:
        self._metrics, self._budget = metrics, budget
        now = time.time()
        metrics.set(RUN_STARTED, now)
        metrics.set(RUN_PROGRESS, now)
        metrics.set(RUN_ACTIVE, 1.0)

    def progress(self) -> None:
        """A trajectory has reported an update."""
        self._metrics.set(RUN_PROGRESS, time.time())

    def state(self, trials: Sequence[FrozenTrial], spent: Spent, wall_s: float) -> None:
        """Set the gauges to the state of the study.

        Args:
            spent: by all processes.
            wall_s: seconds of all sessions.
        """
        counts = Counter(STATES[trial.state] for trial in trials)
        for state in STATES.values():
            self._metrics.set(TRIALS, counts[state], state)
        best = best_trial(trials)
        if best is not None:
            self._metrics.set(BEST_OBJECTIVE, best.values[0])
        for name, share in budget_left(self._budget, spent, wall_s).items():
            self._metrics.set(BUDGET_LEFT, share, name)

    def end(self) -> None:
        """The sweep has ended."""
        self._metrics.set(RUN_ACTIVE, 0.0)
