"""Optuna's samplers and pruners, as the configuration names them."""

from __future__ import annotations

import warnings
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
    """Keep Optuna's news and its warnings about what is experimental to itself."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", module=r"optuna\..*")


def require_packages(sweep: SweepSection) -> None:
    """See that the sampler can be built.

    Raises:
        ConfigError: a package is missing, or the sampler cannot do what is asked.
    """
    kind = sweep.sampler.kind
    package = _PACKAGES.get(kind)
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            "sweep.sampler.kind", f"{kind!r} needs the package {package}", f"install it: pip install {package}"
        )
    if kind == "cmaes" and len(sweep.objectives) > 1:
        raise ConfigError("sweep.sampler.kind", "'cmaes' knows a single objective", "use tpe, or keep one objective")


def build_sampler(sweep: SweepSection, trial: int, *, conditional: bool) -> BaseSampler:
    """The sampler for one trial.

    Every trial has one of its own, seeded by the sweep's seed and the trial's number: what is drawn depends on that and
    on the trials before, never on which process draws, or what it drew before.
    """
    config = sweep.sampler
    seed = Random(f"{sweep.seed}/{trial}/sampler").getrandbits(31)
    match config:
        case TpeConfig():
            # Groups let options that only some trials have be drawn together with the rest.
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
            # One sequence for all trials, so that they keep their distance.
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
    """Takes the trial's own place in the sequence.

    Optuna counts places in the study: two processes that count at once would get the same one, and a trial that is
    taken again would skip one.
    """

    def __init__(self, trial: int, **options: Any) -> None:
        super().__init__(**options)
        self._trial = trial

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._trial


def build_pruner(sweep: SweepSection, num_steps: int) -> BasePruner:
    """The pruner, for searches of at most so many steps."""
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
