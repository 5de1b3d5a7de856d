"""Optuna's samplers, built from the configuration."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study

from cluster.config.sweep import CmaEsConfig, GpConfig, QmcConfig, RandomConfig, SweepSection, TpeConfig
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
    rest: dict[str, Any] = {"independent_sampler": RandomSampler(seed), "warn_independent_sampling": False}
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
            return GPSampler(n_startup_trials=config.startup_trials, seed=seed, **rest)
        case RandomConfig():
            return RandomSampler(seed)
        case QmcConfig():
            # One sequence for all trials, so that they are spread evenly.
            return _NumberedQmc(trial, scramble=True, seed=sweep.seed, **rest)
        case CmaEsConfig():
            return CmaEsSampler(n_startup_trials=config.startup_trials, seed=seed, **rest)


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
