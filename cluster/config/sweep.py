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
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from cluster.config.section import ConfigPath, OptionInfo, Section, VariableName, by_kind
from cluster.config.tasks import Tasks

MAY_CHANGE = OptionInfo(may_change=True)
Scalar = bool | int | float | str | None
Objective = Literal["val", "tokens", "usd"]
_WITH_PASSWORD = re.compile(r"://[^@]*:[^@]*@|[?&](?:ssl)?(?:password|passwd|pwd)=", re.IGNORECASE)


class Choices(Section):
    """One of a few values."""

    choices: Annotated[tuple[Scalar, ...], Field(min_length=1)]
    """Numbers, texts, truth values or null."""
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Path → the value, or values, that it must have for this option to be tuned; else the option is left as it is."""


class Range(Section):
    """A number between two bounds, both included; a whole number where ``low``, ``high`` and ``step`` are."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw evenly on a logarithmic scale; ``low`` must be positive."""
    step: int | float | None = None
    """Only ``low`` and what lies whole steps above it; not with ``log``."""
    at_most: str | None = None
    """Path of an option whose value is a further upper bound."""
    at_least: str | None = None
    """Path of an option whose value is a further lower bound."""
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    """As for ``choices``."""

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return all(isinstance(bound, int) for bound in (self.low, self.high, self.step or 1))

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.low > self.high:
            raise PydanticCustomError("range", "is above high; swap the two", {"at": "low"})
        if self.log and (self.low <= 0 or self.step is not None):
            raise PydanticCustomError("range", "needs a positive low and no step; correct the range", {"at": "log"})
        if self.step is not None and self.step <= 0:
            raise PydanticCustomError("range", "must be above 0; correct it", {"at": "step"})
        return self


def _distribution(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or (isinstance(value, dict) and "choices" in value) else "range"


Distribution = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_distribution)
]


class JournalStorageConfig(Section):
    """A file of operations; several processes may append to it, also on a network file system."""

    kind: Literal["journal"] = "journal"
    path: Annotated[ConfigPath | None, OptionInfo(is_output=True)] = None
    """Left out: ``study.journal`` in the sweep's folder, which must be a local one then."""


class UrlStorageConfig(Section):
    """A database that Optuna knows, or a Redis server."""

    kind: Literal["url"]
    url: Annotated[Annotated[str, Field(min_length=1)] | None, OptionInfo(sensitive="value")] = None
    """``sqlite:///FILE``, ``postgresql://HOST/DATABASE``, ``redis://HOST:6379/0``, or another URL that Optuna takes;
    without a password."""
    url_env: Annotated[VariableName | None, OptionInfo(sensitive="url_variable")] = None
    """Environment variable with the URL, where it holds a password."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise PydanticCustomError("url_env", "or url must be set, and not both; correct it", {"at": "url_env"})
        if self.url is not None and ("://" not in self.url or _WITH_PASSWORD.search(self.url)):
            problem = "holds a password" if "://" in self.url else "is no URL"
            raise PydanticCustomError(
                "url_env", "{problem}; name a variable with the URL in url_env", {"at": "url_env", "problem": problem}
            )
        return self


StorageConfig = Annotated[
    Annotated[JournalStorageConfig, Tag("journal")] | Annotated[UrlStorageConfig, Tag("url")], by_kind("journal", "url")
]


class TpeConfig(Section):
    """Tree-structured Parzen estimator: draws where good trials are denser than bad ones; running ones count as bad."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: NonNegativeInt = 10
    """Trials that are drawn at random first."""


class GpConfig(Section):
    """A Gaussian process; for few parameters and few trials. Needs the package torch."""

    kind: Literal["gp"]
    startup_trials: NonNegativeInt = 10
    """Trials that are drawn at random first."""


class RandomConfig(Section):
    """Draws that know nothing of each other."""

    kind: Literal["random"]


class QmcConfig(Section):
    """A scrambled Sobol sequence: random draws that keep their distance."""

    kind: Literal["qmc"]


class CmaEsConfig(Section):
    """Evolution of a normal distribution; for numbers alone, choices are drawn at random. Needs the package cmaes."""

    kind: Literal["cmaes"]
    startup_trials: NonNegativeInt = 1
    """Trials that are drawn at random first."""


SamplerConfig = Annotated[
    Annotated[TpeConfig, Tag("tpe")]
    | Annotated[GpConfig, Tag("gp")]
    | Annotated[RandomConfig, Tag("random")]
    | Annotated[QmcConfig, Tag("qmc")]
    | Annotated[CmaEsConfig, Tag("cmaes")],
    by_kind("tpe", "gp", "random", "qmc", "cmaes"),
]


class SuccessiveHalvingConfig(Section):
    """At steps that grow by a factor, the best of those that came so far go on."""

    kind: Literal["successive_halving"] = "successive_halving"
    min_steps: PositiveInt = 2
    """Steps that every trial takes."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One of so many goes on, and next after so many times the steps."""


class HyperbandConfig(Section):
    """Successive halving in several brackets, which begin at different steps.

    The sampler learns within a bracket, so this takes many trials.
    """

    kind: Literal["hyperband"]
    min_steps: PositiveInt = 2
    """Steps that every trial takes."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """As for ``successive_halving``."""


class MedianConfig(Section):
    """Prunes what is below the median of earlier trials at the same step."""

    kind: Literal["median"]
    min_steps: PositiveInt = 1
    """Steps that every trial takes."""
    startup_trials: NonNegativeInt = 5
    """Trials that must be complete before any is pruned."""


class WilcoxonConfig(Section):
    """Prunes what a signed-rank test finds worse than the best trial, paired over tasks, seeds and steps."""

    kind: Literal["wilcoxon"]
    p: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Level of the test."""
    min_steps: PositiveInt = 2
    """Steps that every trial takes."""


class NoPrunerConfig(Section):
    """Every trial runs to its end."""

    kind: Literal["none"]


# A name of its own, since a union with None needs a member that can be hashed.
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
    """Tasks on which the best trial is held against the paper's defaults, once all trials are done."""

    tasks: Tasks
    """As in the section ``tasks``; others than those that the hyperparameters are tuned on."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Left out: ``run.seeds``."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Level of the test; the interval that is told covers 1 - alpha."""


class SweepSection(Section):
    """How hyperparameters are tuned."""

    trials: Annotated[PositiveInt, MAY_CHANGE] = 24
    """Populations that are run, in all processes and sittings together; a larger number than before goes on."""
    max_parallel_trials: Annotated[PositiveInt, MAY_CHANGE] = 4
    """Populations side by side in one process."""
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Path of an option, such as ``optimizer.schedule.initial``, → the values to draw from."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("val",)
    """``val``: best mean ``val`` score of the population, as high as can be. ``tokens``, ``usd``: what its calls take,
    as little as can be; those that the cache answered count like the others, or trials would not compare. Several give
    a Pareto front."""
    sampler: SamplerConfig = TpeConfig()
    pruner: PrunerConfig | None = None
    """Left out: successive halving; with several objectives none, since those cannot be pruned."""
    seed: NonNegativeInt = 0
    """Of the sampler."""
    study: Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None, MAY_CHANGE] = None
    """The study's name in its storage; processes that share both work together. Left out: ``run.name``."""
    storage: Annotated[StorageConfig, MAY_CHANGE] = JournalStorageConfig()
    lease_s: Annotated[PositiveFloat, MAY_CHANGE] = 60.0
    """A process that gave no sign of life for so long counts as dead, and others go on with its trials."""
    holdout: Annotated[HoldoutConfig | None, MAY_CHANGE] = None
    """Left out: the best trial is not confirmed."""

    @model_validator(mode="before")
    @classmethod
    def _storage_by_url(cls, sweep: Any) -> Any:
        if isinstance(sweep, dict) and isinstance(sweep.get("storage"), str):
            return {**sweep, "storage": {"kind": "url", "url": sweep["storage"]}}
        return sweep

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        if self.objectives[0] != "val" or len(set(self.objectives)) < len(self.objectives):
            raise PydanticCustomError(
                "objectives", "must begin with val, and name each once; correct it", {"at": "objectives"}
            )
        if len(self.objectives) > 1 and self.pruner is not None and self.pruner.kind != "none":
            raise PydanticCustomError(
                "pruner", "cannot prune by several objectives; leave it out, or keep one objective", {"at": "pruner"}
            )
        return self

    @property
    def pruning(self) -> HyperbandConfig | SuccessiveHalvingConfig | MedianConfig | WilcoxonConfig | NoPrunerConfig:
        """The pruner: the one that is given, or the one that suits the objectives."""
        several = len(self.objectives) > 1
        return self.pruner or (NoPrunerConfig(kind="none") if several else SuccessiveHalvingConfig())
