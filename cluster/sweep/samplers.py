"""Optuna's samplers and pruners, built from the configuration."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from cluster.config.sweep import (
    CmaEsConfig,
    GpConfig,
    HyperbandConfig,
    MedianConfig,
    NoPrunerConfig,
    QmcConfig,
    RandomConfig,
    SuccessiveHalvingConfig,
    SweepSection,
    TpeConfig,
    WilcoxonConfig,
)
from gpo.errors import ConfigError

_PACKAGES = {"gp": "torch", "cmaes": "cmaes"}


def quiet() -> None:
    """Silence Optuna's log and its warnings about experimental features."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", module=r"optuna\..*")


def require_packages(sweep: SweepSection) -> None:
    """Check that the sampler can be built.

    Raises:
        ConfigError: a package is missing, or the sampler does not support several objectives.
    """
    kind = sweep.sampler.kind
    package = _PACKAGES.get(kind)
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            "sweep.sampler.kind", f"{kind!r} needs the package {package}", f"install it: pip install {package}"
        )
    if kind == "cmaes" and len(sweep.objectives) > 1:
        raise ConfigError("sweep.sampler.kind", "'cmaes' supports a single objective", "use tpe, or keep one objective")


def build_sampler(sweep: SweepSection, trial: int, *, conditional: bool) -> BaseSampler:
    """The sampler for one trial.

    Each trial has its own sampler, seeded by the sweep's seed and the trial's number. So a proposal depends on these
    and on earlier trials, never on the process that draws it or what that process drew before.
    """
    config = sweep.sampler
    seed = Random(f"{sweep.seed}/{trial}/sampler").getrandbits(31)
    match config:
        case TpeConfig():
            # With groups, conditional options are sampled jointly with the others.
            return TPESampler(
                n_startup_trials=config.startup_trials,
                seed=seed,
                multivariate=True,
                group=conditional,
                constant_liar=True,
            )
        case GpConfig():
            return GPSampler(
                n_startup_trials=config.startup_trials,
                seed=seed,
                independent_sampler=RandomSampler(seed),
                warn_independent_sampling=False,
            )
        case RandomConfig():
            return RandomSampler(seed)
        case QmcConfig():
            # One sequence for all trials, so that they are spread evenly.
            return _NumberedQmc(
                trial,
                scramble=True,
                seed=sweep.seed,
                independent_sampler=RandomSampler(seed),
                warn_independent_sampling=False,
            )
        case CmaEsConfig():
            return CmaEsSampler(
                n_startup_trials=config.startup_trials,
                seed=seed,
                independent_sampler=RandomSampler(seed),
                warn_independent_sampling=False,
            )


class _NumberedQmc(QMCSampler):
    """Uses the trial's number as its index in the sequence.

    Optuna counts in the study instead: two processes that count at once would get the same index, and a trial that is
    claimed again would skip one.
    """

    def __init__(self, trial: int, **options: Any) -> None:
        super().__init__(**options)
        self._trial = trial

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._trial


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
