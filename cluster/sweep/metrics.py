"""What a sweep tells the metrics of its process: its trials by state, the best of them, what is left of the budget."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from actors.metrics.catalogue import BEST_OBJECTIVE, BUDGET_LEFT, RUN_ACTIVE, RUN_PROGRESS, RUN_STARTED, TRIALS
from cluster.config.root import BudgetConfig
from cluster.metrics.run_metrics import Metrics
from cluster.sweep.study import best_trial
from gpo.limits.messages import Spent

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""Optuna's state → our word for it, here and in ``sweep.json``."""


class SweepMetrics:
    """The gauges of a sweep; its calls, tokens and cost are counted where they happen, as those of a run.

    Trials are those of the whole study: every process that works on it tells the same. What is left of the budget is
    left for all of them together, too.
    """

    def __init__(self, metrics: Metrics, budget: BudgetConfig) -> None:
        self._metrics, self._budget = metrics, budget
        now = time.time()
        metrics.set(RUN_STARTED, now)
        metrics.set(RUN_PROGRESS, now)
        metrics.set(RUN_ACTIVE, 1.0)

    def progress(self) -> None:
        """A population has got on."""
        self._metrics.set(RUN_PROGRESS, time.time())

    def state(self, trials: Sequence[FrozenTrial], spent: Spent, wall_s: float) -> None:
        """Tell how the study stands.

        Args:
            spent: by all processes.
            wall_s: seconds of all sittings.
        """
        counts = Counter(STATES[trial.state] for trial in trials)
        for state in STATES.values():
            self._metrics.set(TRIALS, counts[state], state)
        best = best_trial(trials)
        if best is not None:
            self._metrics.set(BEST_OBJECTIVE, best.values[0])
        used = {"calls": spent.calls, "tokens": spent.tokens, "usd": spent.usd, "wall_s": wall_s}
        for name, amount in used.items():
            most = getattr(self._budget, name)
            if most is not None:
                self._metrics.set(BUDGET_LEFT, max(0.0, 1 - amount / most), name)

    def end(self) -> None:
        """Nothing is worked on any more."""
        self._metrics.set(RUN_ACTIVE, 0.0)
