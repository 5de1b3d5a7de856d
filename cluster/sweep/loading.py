"""From a file with a section ``sweep`` to what ``gpo sweep`` works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cluster.config import RunConfig
from cluster.config.loading import read_overridden, validate, validate_as
from cluster.config.root import BudgetConfig
from cluster.config.section import Section
from cluster.config.sweep import SweepSection
from cluster.session.models import build_tasks
from cluster.sweep.space import Space
from gpo.data.task import Task
from gpo.errors import ConfigError


class _File(Section):
    sweep: SweepSection


@dataclass(frozen=True)
class SweepConfig:
    """A checked sweep.

    Attributes:
        section: what the section says.
        base: the configuration below all trials; its budget is that of the whole sweep.
        space: over ``base``.
        tasks: that the hyperparameters are tuned on, loaded and checked.
        holdout: the configuration of the confirmation, and its tasks; ``None`` without one.
    """

    section: SweepSection
    base: RunConfig
    space: Space
    tasks: Sequence[Task]
    holdout: RunConfig | None
    holdout_tasks: Sequence[Task]

    @property
    def study(self) -> str:
        """The study's name."""
        return self.section.study or self.base.run.name

    @property
    def together(self) -> RunConfig:
        """What the evaluator serves: all tasks."""
        return self.base if self.holdout is None else with_tasks(self.base, (*self.base.tasks, *self.holdout.tasks))

    @property
    def with_other_models(self) -> list[RunConfig]:
        """A configuration for each set of models that trials may use."""
        found = [self.together]
        for params in self.space.corners() if any(path.startswith("models.") for path in self.space.options) else ():
            config = self.space.config(params)
            if all(_asked(config) != _asked(other) for other in found):
                found.append(config)
        return found

    @cached_property
    def num_steps(self) -> int:
        """Steps of the longest search that the space allows."""
        sizes = [len(examples) for task in self.tasks for split, examples in task.examples.items() if split == "train"]
        return max(
            self.space.config(params).optimizer.num_steps(size) for params in self.space.corners() for size in sizes
        )

    def dump(self) -> str:
        """All of it as YAML, complete with defaults and absolute paths, in a form that ``gpo sweep`` accepts."""
        document: dict[str, Any] = {
            **self.base.model_dump(mode="json"),
            "sweep": self.section.model_dump(mode="json"),
        }
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def load_sweep(path: Path, overrides: Sequence[str]) -> SweepConfig:
    """The sweep in a file, with overrides put over it.

    Raises:
        ConfigError: names the first field that cannot be used, also those of the space; or data cannot be used.
    """
    raw = read_overridden(path, overrides)
    if "compare" in raw:
        raise ConfigError("compare", "is a comparison of several methods", f"run it with: gpo compare {path}")
    if "sweep" not in raw:
        raise ConfigError("sweep", "is missing", "say in it what is tuned, or run the file with: gpo run")
    section = validate_as(_File, {"sweep": raw.pop("sweep")}, path.parent).sweep
    base = validate(raw, base_dir=path.parent)
    tasks = build_tasks(base)
    space = Space(raw, base, path.parent, section.space)
    space.check(tasks)
    if section.holdout is None:
        return SweepConfig(section, base, space, tasks, None, ())
    known = {task.name for task in base.tasks}
    for task in section.holdout.tasks:
        if task.name in known:
            raise ConfigError(
                "sweep.holdout.tasks", f"{task.name!r} is tuned on or stands twice", "name tasks that are not"
            )
        known.add(task.name)
    holdout = with_tasks(base, section.holdout.tasks)
    if section.holdout.seeds is not None:
        holdout = holdout.model_copy(
            update={"run": holdout.run.model_copy(update={"seeds": tuple(dict.fromkeys(section.holdout.seeds))})}
        )
    return SweepConfig(section, base, space, tasks, holdout, _built(holdout))


def with_tasks(config: RunConfig, tasks: Sequence[Any]) -> RunConfig:
    """The configuration with other tasks."""
    return config.model_copy(update={"tasks": tuple(tasks)})


def without_budget(config: RunConfig) -> RunConfig:
    """The configuration of a run that is bounded by nothing."""
    return config.model_copy(update={"budget": BudgetConfig()})


def _built(holdout: RunConfig) -> list[Task]:
    try:
        return build_tasks(holdout)
    except ConfigError as error:
        raise ConfigError(f"sweep.holdout.{error.field}", error.problem, error.remedy) from None


def _asked(config: RunConfig) -> tuple[str, ...]:
    """What is looked up at the endpoint of the optimizer model."""
    model = config.models.optimizer
    return tuple(
        str(getattr(model, option, "")) for option in ("kind", "base_url", "model", "api_key_env", "api_key_file")
    )
