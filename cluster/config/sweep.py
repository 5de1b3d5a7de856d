"""Section ``sweep``: which hyperparameters are tuned, and how; read by ``gpo sweep`` alone."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)
from typing_extensions import TypeAliasType

from cluster.config.section import ConfigPath, OptionInfo, Section, VariableName, by_kind, unfit
from cluster.config.tasks import Tasks

MAY_CHANGE = OptionInfo(may_change=True)
Scalar = bool | int | float | str | None
Objective = Literal["val", "tokens", "usd"]
_WITH_PASSWORD = re.compile(r"://[^@]*:[^@]*@|[?&](?:ssl)?(?:password|passwd|pwd)=", re.IGNORECASE)


class Choices(Section):
    """One of a few values."""

    choices: Annotated[tuple[Scalar, ...], Field(min_length=1)]
    """The values: numbers, texts, truth values or null."""
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Condition: the path of another option → the value, or values, that it must have for this option to be tuned.
    Otherwise the option keeps its value."""


class Range(Section):
    """A number between two bounds, both included; a whole number if ``low``, ``high`` and ``step`` are."""

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""
    log: bool = False
    """Draw uniformly on a logarithmic scale; ``low`` must be positive."""
    step: int | float | None = None
    """Distance between the values, starting at ``low``; not with ``log``. Default: any value."""
    at_most: str | None = None
    """Path of an option whose value is another upper bound."""
    at_least: str | None = None
    """Path of an option whose value is another lower bound."""
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Condition, as for ``choices``."""

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(bound, int) for bound in (self.low, self.high, self.step or 1))

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.low > self.high:
            raise unfit("is above high; swap the two", at="low")
        if self.log and (self.low <= 0 or self.step is not None):
            raise unfit("needs a positive low and no step; correct the range", at="log")
        if self.step is not None and self.step <= 0:
            raise unfit("must be above 0; correct it", at="step")
        return self


def _distribution(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or (isinstance(value, dict) and "choices" in value) else "range"


Distribution = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_distribution)
]


class JournalStorageConfig(Section):
    """A journal file, to which several processes can append, also on a network file system."""

    kind: Literal["journal"] = "journal"
    path: Annotated[ConfigPath | None, OptionInfo(is_output=True)] = None
    """The file. Default: ``study.journal`` in the sweep's folder, which must then be local."""


class UrlStorageConfig(Section):
    """A database that Optuna supports, or a Redis server."""

    kind: Literal["url"]
    url: Annotated[Annotated[str, Field(min_length=1)] | None, OptionInfo(sensitive="value")] = None
    """``sqlite:///FILE``, ``postgresql://HOST/DATABASE``, ``redis://HOST:6379/0``, or another URL that Optuna supports,
    without a password."""
    url_env: Annotated[VariableName | None, OptionInfo(sensitive="url_variable")] = None
    """Environment variable with the URL, for a URL with a password."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise unfit("or url must be set, but not both; set one", at="url_env")
        if self.url is not None and ("://" not in self.url or _WITH_PASSWORD.search(self.url)):
            problem = "holds a password" if "://" in self.url else "is not a URL"
            raise unfit(f"{problem}; name a variable with the URL in url_env", at="url_env")
        return self


StorageConfig = Annotated[
    Annotated[JournalStorageConfig, Tag("journal")] | Annotated[UrlStorageConfig, Tag("url")], by_kind("journal", "url")
]


class TpeConfig(Section):
    """Tree-structured Parzen estimator: samples where good trials are denser than bad (or running) ones."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: NonNegativeInt = 10
    """Trials at the beginning that are drawn at random."""


class GpConfig(Section):
    """Gaussian process, for few parameters and few trials. Needs the package torch."""

    kind: Literal["gp"]
    startup_trials: NonNegativeInt = 10
    """Trials at the beginning that are drawn at random."""


class RandomConfig(Section):
    """Independent random samples."""

    kind: Literal["random"]


class QmcConfig(Section):
    """Scrambled Sobol sequence: random samples that cover the space evenly."""

    kind: Literal["qmc"]


class CmaEsConfig(Section):
    """CMA-ES, for numbers only; choices are drawn at random. Needs the package cmaes."""

    kind: Literal["cmaes"]
    startup_trials: NonNegativeInt = 1
    """Trials at the beginning that are drawn at random."""


SamplerConfig = Annotated[
    Annotated[TpeConfig, Tag("tpe")]
    | Annotated[GpConfig, Tag("gp")]
    | Annotated[RandomConfig, Tag("random")]
    | Annotated[QmcConfig, Tag("qmc")]
    | Annotated[CmaEsConfig, Tag("cmaes")],
    by_kind("tpe", "gp", "random", "qmc", "cmaes"),
]


class _HalvingConfig(Section):
    min_steps: PositiveInt = 2
    """Steps that every trial takes."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One of this many trials continues, until this many times the steps."""


class SuccessiveHalvingConfig(_HalvingConfig):
    """At geometrically spaced steps, only the best of the trials that reached that step continue."""

    kind: Literal["successive_halving"] = "successive_halving"


class HyperbandConfig(_HalvingConfig):
    """Successive halving in several brackets that start at different steps.

    The sampler learns within each bracket, so this needs many trials.
    """

    kind: Literal["hyperband"]


class MedianConfig(Section):
    """Prunes trials that are below the median of earlier trials at the same step."""

    kind: Literal["median"]
    min_steps: PositiveInt = 1
    """Steps that every trial takes."""
    startup_trials: NonNegativeInt = 5
    """Trials that must complete before any is pruned."""


class WilcoxonConfig(Section):
    """Prunes trials that a signed-rank test finds worse than the best trial, paired over tasks, seeds and steps."""

    kind: Literal["wilcoxon"]
    p: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Level of the test."""
    min_steps: PositiveInt = 2
    """Steps that every trial takes."""


class NoPrunerConfig(Section):
    """No pruning: every trial runs to its end."""

    kind: Literal["none"]


# A type alias, since a union with None needs members that can be hashed.
PrunerConfig = TypeAliasType(
    "PrunerConfig",
    Annotated[
        Annotated[SuccessiveHalvingConfig, Tag("successive_halving")]
        | Annotated[HyperbandConfig, Tag("hyperband")]
        | Annotated[MedianConfig, Tag("median")]
        | Annotated[WilcoxonConfig, Tag("wilcoxon")]
        | Annotated[NoPrunerConfig, Tag("none")],
        by_kind("successive_halving", "hyperband", "median", "wilcoxon", "none"),
    ],
)


class HoldoutConfig(Section):
    """Held-out tasks on which the best trial is compared with the paper's defaults, after all trials."""

    tasks: Tasks
    """Tasks as in the section ``tasks``, other than those that the hyperparameters are tuned on."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Seeds of the comparison. Default: ``run.seeds``."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Level of the test; the confidence interval covers 1 - alpha."""


class SweepSection(Section):
    """How hyperparameters are tuned."""

    trials: Annotated[PositiveInt, MAY_CHANGE] = 24
    """Trials in all, over all processes and attempts. Resuming with a larger number adds trials."""
    max_parallel_trials: Annotated[PositiveInt, MAY_CHANGE] = 4
    """Trials that run in parallel in one process."""
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """The search space: the path of an option, such as ``optimizer.schedule.initial`` → the values to draw from."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("val",)
    """``val``: maximize the best mean ``val`` score of the trial. ``tokens``, ``usd``: minimize what its calls take;
    calls that the cache answered count like the others, so that trials compare. Several objectives give a Pareto
    front."""
    sampler: SamplerConfig = TpeConfig()
    """How the values of a trial are chosen."""
    pruner: PrunerConfig | None = None
    """How trials that fall behind are stopped. Default: successive halving; with several objectives none, since Optuna
    cannot prune those."""
    seed: NonNegativeInt = 0
    """Seed of the sampler."""
    study: Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None, MAY_CHANGE] = None
    """Name of the study in its storage; processes with the same study and storage work together. Default:
    ``run.name``."""
    storage: Annotated[StorageConfig, MAY_CHANGE] = JournalStorageConfig()
    """Where the study is stored: a journal file, or a URL."""
    lease_s: Annotated[PositiveFloat, MAY_CHANGE] = 60.0
    """Seconds without a sign of life after which a process counts as dead, and others take over its trials."""
    holdout: Annotated[HoldoutConfig | None, MAY_CHANGE] = None
    """Held-out tasks that confirm the best trial. Default: no confirmation."""

    @model_validator(mode="before")
    @classmethod
    def _storage_by_url(cls, sweep: Any) -> Any:
        if isinstance(sweep, dict) and isinstance(sweep.get("storage"), str):
            return {**sweep, "storage": {"kind": "url", "url": sweep["storage"]}}
        return sweep

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        if self.objectives[0] != "val" or len(set(self.objectives)) < len(self.objectives):
            raise unfit("must begin with val and name each once; correct the list", at="objectives")
        if len(self.objectives) > 1 and self.pruner is not None and self.pruner.kind != "none":
            raise unfit("cannot prune with several objectives; leave it out, or keep one objective", at="pruner")
        return self

    @property
    def pruning(self) -> HyperbandConfig | SuccessiveHalvingConfig | MedianConfig | WilcoxonConfig | NoPrunerConfig:
        """The configured pruner, or else the default for the objectives."""
        several = len(self.objectives) > 1
        return self.pruner or (NoPrunerConfig(kind="none") if several else SuccessiveHalvingConfig())
