from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.observability import MetricsConfig
from cluster.config.run import BudgetConfig
from cluster.monitoring.run_metrics import Metrics
from cluster.sweep.metrics import SweepMetrics
from gpo.limits.messages import Spent
from tests.unit.cluster.sweep.test_study import Process, pruned_at


class Exported:
    """The metrics of a sweep, and what a scrape would find."""

    def __init__(self, **budget: float) -> None:
        self._metrics = Metrics(MetricsConfig(), "r", is_alone=True)
        self.sweep = SweepMetrics(self._metrics, BudgetConfig(**budget))  # type: ignore[arg-type]

    def __call__(self, name: str) -> dict[str, float]:
        """Value of the last label → number; an empty value if ``run`` is the only label."""
        return {
            "".join(labels[1:]): row[0]
            for (metric, labels), row in self._metrics.numbers().items()
            if metric == f"gpo_{name}"
        }


def test_trials_are_exported_by_state_and_the_best_objective_once_there_is_one(tmp_path: Path) -> None:
    exported, process = Exported(), Process(tmp_path, trials=6, pruner={"kind": "median", "startup_trials": 1})
    exported.sweep.state(process.study.trials(), Spent(), 0.0)
    assert exported("trials") == {"waiting": 6, "running": 0, "complete": 0, "pruned": 0, "failed": 0}
    assert exported("sweep_best_objective") == {}
    for curve in ([[0.5, 0.75]] * 3, [[0.25, 0.25]] * 3, [[0.75, 0.75]] * 3):
        pruned_at(process, curve)
    process.study.tell(process.claim(), "failed", (), {})
    process.claim()
    exported.sweep.state(process.study.trials(), Spent(), 0.0)
    assert exported("trials") == {"waiting": 1, "running": 1, "complete": 2, "pruned": 1, "failed": 1}
    assert exported("sweep_best_objective") == {"": 0.75}


def test_the_best_objective_is_val_even_with_several_objectives(tmp_path: Path) -> None:
    exported, process = Exported(), Process(tmp_path, objectives=["val", "tokens"])
    for values in ([0.5, 100.0], [0.75, 900.0]):
        process.study.tell(process.claim(), "complete", values, {})
    exported.sweep.state(process.study.trials(), Spent(), 0.0)
    assert exported("sweep_best_objective") == {"": 0.75}


def test_the_budget_left_is_exported_for_each_bound(tmp_path: Path) -> None:
    exported = Exported(calls=1000, wall_s=100.0)
    exported.sweep.state([], Spent(250, 7, 0.5), 120.0)
    assert exported("budget_left_ratio") == {"calls": 0.75, "wall_s": 0.0}


def test_a_sweep_is_active_until_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = Exported()
    assert exported("run_active") == {"": 1}
    (began,) = exported("run_progress_timestamp_seconds").values()
    assert exported("run_start_timestamp_seconds") == {"": began}
    monkeypatch.setattr("cluster.sweep.metrics.time.time", lambda: began + 60)
    exported.sweep.progress()
    assert exported("run_progress_timestamp_seconds") == {"": began + 60}
    exported.sweep.end()
    assert exported("run_active") == {"": 0}
