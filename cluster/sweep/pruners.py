"""Optuna's pruners, built from the configuration."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.trial import TrialState, create_trial

from cluster.config.sweep import (
    HyperbandConfig,
    MedianConfig,
    NoPrunerConfig,
    SuccessiveHalvingConfig,
    SweepSection,
    WilcoxonConfig,
)


def build_pruner(sweep: SweepSection, num_steps: int) -> BasePruner:
    """The pruner, for trajectories of at most ``num_steps`` steps."""
    config = sweep.pruning
    match config:
        case HyperbandConfig():
            return HyperbandPruner(
                min_resource=min(config.min_steps, max(1, num_steps)),
                max_resource=max(1, num_steps),
                reduction_factor=config.reduction,
            )
        case SuccessiveHalvingConfig():
            return SuccessiveHalvingPruner(min_resource=config.min_steps, reduction_factor=config.reduction)
        case MedianConfig():
            return MedianPruner(n_startup_trials=config.startup_trials, n_warmup_steps=config.min_steps)
        case WilcoxonConfig():
            return WilcoxonPruner(p_threshold=config.p, n_startup_steps=2)
        case NoPrunerConfig():
            return NopPruner()


def wilcoxon_prunes(
    pruner: BasePruner, ours: Sequence[Sequence[float]], best: Sequence[Sequence[float]], best_value: float
) -> bool:
    """Whether the Wilcoxon test prunes a trial, given the trajectories' values by step of it and of the best trial.

    The test pairs instances by their index. Here an instance is one trajectory at one step; Optuna's own trials hold
    only the mean of each step.
    """
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=best_value, intermediate_values=_instances(best)))
    return pruner.prune(study, create_trial(state=TrialState.RUNNING, intermediate_values=_instances(ours)))


def _instances(steps: Sequence[Sequence[float]]) -> dict[int, float]:
    return {
        step * len(values) + index: value for step, values in enumerate(steps) for index, value in enumerate(values)
    }
