"""The space of a sweep: the options that are tuned, the configurations in it, and the paper's setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import ceil, e, floor
from pathlib import Path
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from cluster.config import RunConfig
from cluster.config.files import laid_over
from cluster.config.loading import validate
from cluster.config.optimizer import OptimizerConfig
from cluster.config.presets import PAPER
from cluster.config.section import OptionInfo, declared
from cluster.config.sweep import Choices, Range, Scalar
from cluster.session.models import check_strategies, embedded_specs
from gpo.data.task import Task
from gpo.errors import ConfigError

Params = dict[str, Scalar]
"""Path → value, only for paths whose conditions hold."""
Choose = Callable[[str, BaseDistribution], Scalar]

_TUNABLE = tuple(path for path, field in declared(RunConfig) if OptionInfo.of(field).tunable)
_MOST_CORNERS = 512
_MISSING = object()


@dataclass(frozen=True)
class Space:
    """Options that are tuned, and the configuration of all others.

    Attributes:
        raw: the configuration's sections as read, without the section ``sweep``.
        base: the same, validated.
        base_dir: the folder that relative paths in ``raw`` start from.
        options: path → the values to draw from.
    """

    raw: Mapping[str, Any]
    base: RunConfig
    base_dir: Path
    options: Mapping[str, Range | Choices]

    def config(self, params: Mapping[str, Scalar]) -> RunConfig:
        """The configuration with these values.

        Raises:
            ConfigError: the values do not fit together; names the option and the values.
        """
        try:
            return validate(laid_over(self.raw, _nested(params)), base_dir=self.base_dir)
        except ConfigError as error:
            given = ", ".join(f"{path} = {value!r}" for path, value in params.items())
            raise ConfigError(f"sweep.space: {error.field}", f"{error.problem} (with {given})", error.remedy) from None

    def suggested(self, trial: Trial) -> Params:
        """The sampler's proposal for a trial; the same again when called again."""

        def choose(path: str, distribution: BaseDistribution) -> Scalar:
            if isinstance(distribution, CategoricalDistribution):
                return trial.suggest_categorical(path, distribution.choices)
            if isinstance(distribution, IntDistribution):
                step, low, high = distribution.step, distribution.low, distribution.high
                return trial.suggest_int(path, low, high, step=step, log=distribution.log)
            assert isinstance(distribution, FloatDistribution)  # noqa: S101  # there are no others
            step_size, bounds = distribution.step, (distribution.low, distribution.high)
            return trial.suggest_float(path, *bounds, step=step_size, log=distribution.log)

        return self.assigned(choose)

    def assigned(self, choose: Choose) -> Params:
        """A value for each option whose conditions hold; options that others refer to come first."""
        params: Params = {}
        for path in self.order:
            distribution = self._distribution(path, params)
            if distribution is not None:
                params[path] = choose(path, distribution)
        return params

    @property
    def paper(self) -> Params:
        """The setting nearest to the paper's; options that the paper does not mention keep the base's value."""
        defaults = {
            "optimizer": OptimizerConfig(epochs=3).model_dump(mode="json"),
            "models": {"optimizer": {"sampling": {"temperature": 1.0}}},
        }
        known = laid_over(defaults, PAPER)

        def choose(path: str, distribution: BaseDistribution) -> Scalar:
            value = _at(known, path)
            return _nearest(distribution, self._base_value(path) if value is _MISSING or value is None else value)

        return self.assigned(choose)

    @property
    def is_conditional(self) -> bool:
        """Whether an option is tuned in some trials only."""
        return any(option.when for option in self.options.values())

    @cached_property
    def order(self) -> list[str]:
        """The paths, each after those that it refers to.

        Raises:
            ConfigError: the references form a circle.
        """
        ordered: list[str] = []
        waiting = list(self.options)
        while waiting:
            path = next((one for one in waiting if not self._refers_to(one) & (set(waiting) - {one})), None)
            if path is None or path in self._refers_to(path):
                raise ConfigError(f"sweep.space.{path or waiting[0]}", "refers to itself", "break the circle")
            ordered.append(path)
            waiting.remove(path)
        return ordered

    def check(self, tasks: Sequence[Task]) -> None:
        """Validate the configuration of every corner, or of a sample of them, before any model is called.

        Raises:
            ConfigError: a path names no option, or one that may not be tuned; or values are invalid or do not fit
                together.
        """
        for path in self.order:
            self._require_tunable(path)
        specs = set(embedded_specs(self.base))
        for params in self.corners():
            config = self.config(params)
            check_strategies(config, tasks)
            if not set(embedded_specs(config)) <= specs:
                raise ConfigError(
                    "sweep.space", "changes how the embedded model's server is started", "tune other options"
                )

    def corners(self) -> Iterator[Params]:
        """All combinations of the options' extreme values and choices; a sample where there are too many."""
        corners = list(islice(self._corners({}, self.order), _MOST_CORNERS + 1))
        if len(corners) <= _MOST_CORNERS:
            yield from corners
            return
        draw = Random(0)
        yield self.assigned(lambda _, distribution: _ends(distribution)[0])
        yield self.assigned(lambda _, distribution: _ends(distribution)[-1])
        for _ in range(_MOST_CORNERS):
            yield self.assigned(lambda _, distribution: draw.choice(_ends(distribution)))

    def _corners(self, params: Params, rest: Sequence[str]) -> Iterator[Params]:
        if not rest:
            yield params
            return
        distribution = self._distribution(rest[0], params)
        if distribution is None:
            yield from self._corners(params, rest[1:])
            return
        for value in _ends(distribution):
            yield from self._corners({**params, rest[0]: value}, rest[1:])

    def _require_tunable(self, path: str) -> None:
        where = f"sweep.space.{path}"
        if not f"{path}.".startswith(tuple(f"{section}." for section in _TUNABLE)):
            raise ConfigError(
                where,
                "must be the same in all trials: they share the task model and the evaluator, so that scores compare",
                f"tune options of: {', '.join(_TUNABLE)}",
            )
        above = next((other for other in self.options if path.startswith(f"{other}.")), None)
        if above is not None:
            raise ConfigError(where, f"lies below {above}, which is tuned as a whole", "tune one of the two")
        if self.options[path].when:
            return  # may be meaningless without other options
        # By itself, at each of its values, so that an error names the option.
        option = self.options[path]
        for value in option.choices if isinstance(option, Choices) else _samples(option):
            try:
                validate(laid_over(self.raw, _nested({path: value})), base_dir=self.base_dir)
            except ConfigError as error:
                if error.field and (path == error.field or path.startswith(error.field)):
                    raise ConfigError(
                        where, f"cannot be {value!r}: {error.field} {error.problem}", error.remedy
                    ) from None

    def _refers_to(self, path: str) -> set[str]:
        option = self.options[path]
        bounds = {option.at_most, option.at_least} if isinstance(option, Range) else set()
        return {*option.when, *(bound for bound in bounds if bound is not None)} & set(self.options)

    def _distribution(self, path: str, params: Params) -> BaseDistribution | None:
        """The values to draw from, given the options drawn before; ``None`` where a condition does not hold."""
        option = self.options[path]
        for other, wanted in option.when.items():
            if self._value(other, params, f"sweep.space.{path}.when") not in (
                wanted if isinstance(wanted, tuple) else (wanted,)
            ):
                return None
        if isinstance(option, Choices):
            return CategoricalDistribution(option.choices)
        low, high = option.low, option.high
        if option.at_least is not None:
            least = self._bound(path, "at_least", option.at_least, params)
            # On the grid of steps, where there is one.
            low = max(low, least if option.step is None else low + option.step * ceil((least - low) / option.step))
        if option.at_most is not None:
            high = min(high, self._bound(path, "at_most", option.at_most, params))
        if option.is_whole:
            low, high = ceil(low), floor(high)
        if low > high:
            raise ConfigError(
                f"sweep.space.{path}", f"has no value left between {low} and {high}", "widen its range, or the bound's"
            )
        if option.is_whole:
            step = int(option.step or 1)
            return IntDistribution(int(low), int(high - (high - low) % step), log=option.log, step=step)
        return FloatDistribution(low, high, log=option.log, step=option.step)

    def _bound(self, path: str, name: str, other: str, params: Params) -> float:
        value = self._value(other, params, f"sweep.space.{path}.{name}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(
                f"sweep.space.{path}.{name}", f"{other} is {value!r}, not a number", "name another option"
            )
        return value

    def _value(self, path: str, params: Params, where: str) -> Any:
        if path in params:
            return params[path]
        value = self._base_value(path)
        if value is not _MISSING:
            return value
        option = self.options.get(path)
        if option is not None:  # tuned, but neither in this trial nor in the base: use its first value
            return option.choices[0] if isinstance(option, Choices) else option.low
        raise ConfigError(where, f"{path!r} is not an option with a value here", "name another option")

    def _base_value(self, path: str) -> Any:
        return _at(self._dumped, path)

    @cached_property
    def _dumped(self) -> Mapping[str, Any]:
        return self.base.model_dump(mode="json")


def _samples(option: Range) -> tuple[int | float, ...]:
    """Both ends, and a value between them unless the range is of whole numbers."""
    between = option.low + (option.step or (option.high - option.low) / e)
    return (
        (option.low, option.high) if option.is_whole or between >= option.high else (option.low, option.high, between)
    )


def _nested(params: Mapping[str, Scalar]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for path, value in params.items():
        *above, option = path.split(".")
        section = sections
        for name in above:
            section = section.setdefault(name, {})
        section[option] = value
    return sections


def _at(sections: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(sections, Mapping) or name not in sections:
            return _MISSING
        sections = sections[name]
    return sections


def _ends(distribution: BaseDistribution) -> list[Scalar]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)  # noqa: S101  # there are no others
    return list(dict.fromkeys((distribution.low, distribution.high)))


def _nearest(distribution: BaseDistribution, value: Any) -> Scalar:
    """The value in the distribution that is nearest; the first choice for a value that is not among the choices."""
    if isinstance(distribution, CategoricalDistribution):
        return value if value in distribution.choices else distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)  # noqa: S101  # there are no others
    if isinstance(value, bool) or not isinstance(value, int | float):
        return distribution.low
    bounded = min(max(value, distribution.low), distribution.high)
    if distribution.step is not None:
        steps = round((bounded - distribution.low) / distribution.step)
        bounded = min(distribution.low + steps * distribution.step, distribution.high)
    return int(bounded) if isinstance(distribution, IntDistribution) else float(bounded)
