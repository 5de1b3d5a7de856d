"""The configuration of a sweep: a run's file with a section ``sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cluster.config import RunConfig
from cluster.config.loading import read_overridden, validate, validate_section
from cluster.config.run import BudgetConfig
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
        section: the section ``sweep``.
        base: the configuration that all trials change; its budget limits the whole sweep.
        space: the options that are tuned.
        tasks: for tuning; loaded and checked.
        holdout: the configuration of the confirmation; ``None`` without one.
        holdout_tasks: the confirmation's tasks; empty without one.
    """

    section: SweepSection
    base: RunConfig
    space: Space
    tasks: Sequence[Task]
    holdout: RunConfig | None
    holdout_tasks: Sequence[Task]

    @property
    def study(self) -> str:
        """Name of the study."""
        return self.section.study or self.base.run.name

    @property
    def together(self) -> RunConfig:
        """The configuration of the evaluator, which serves all tasks."""
        return self.base if self.holdout is None else with_tasks(self.base, (*self.base.tasks, *self.holdout.tasks))

    @property
    def with_other_models(self) -> list[RunConfig]:
        """One configuration for each set of models that trials may use."""
        found = [self.together]
        for params in self.space.corners() if any(path.startswith("models.") for path in self.space.options) else ():
            config = self.space.config(params)
            if all(_asked(config) != _asked(other) for other in found):
                found.append(config)
        return found

    @cached_property
    def num_steps(self) -> int:
        """Steps of the longest trajectory in the space."""
        configs = [self.space.config(params) for params in self.space.corners()]
        return max(config.num_steps(task) for config in configs for task in self.tasks)

    def dump(self) -> str:
        """The sweep as YAML that ``gpo sweep`` accepts, with all defaults and absolute paths."""
        document: dict[str, Any] = {
            **self.base.model_dump(mode="json"),
            "sweep": self.section.model_dump(mode="json"),
        }
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def load_sweep(path: Path, overrides: Sequence[str]) -> SweepConfig:
    """Load a sweep from a file, with overrides.

    Raises:
        ConfigError: the first field, of the section or the space, with an invalid value; or data cannot be used.
    """
    raw = read_overridden(path, overrides)
    if "compare" in raw:
        raise ConfigError("compare", "is a comparison of several methods", f"run it with: gpo compare {path}")
    if "sweep" not in raw:
        raise ConfigError("sweep", "is missing", "add the section, or run the file with: gpo run")
    section = validate_section(_File, {"sweep": raw.pop("sweep")}, path.parent).sweep
    base = validate(raw, base_dir=path.parent)
    tasks = build_tasks(base)
    base = base.with_prompts(tasks)
    space = Space(raw, base, path.parent, section.space)
    space.check(tasks)
    if section.holdout is None:
        return SweepConfig(section, base, space, tasks, None, ())
    known = {task.name for task in base.tasks}
    for task in section.holdout.tasks:
        if task.name in known:
            raise ConfigError(
                "sweep.holdout.tasks", f"{task.name!r} is a tuning task or a duplicate", "name other tasks, each once"
            )
        known.add(task.name)
    holdout = with_tasks(base, section.holdout.tasks)
    if section.holdout.seeds is not None:
        holdout = holdout.model_copy(
            update={"run": holdout.run.model_copy(update={"seeds": tuple(dict.fromkeys(section.holdout.seeds))})}
        )
    holdout_tasks = _built(holdout)
    return SweepConfig(section, base, space, tasks, holdout.with_prompts(holdout_tasks), holdout_tasks)


def with_tasks(config: RunConfig, tasks: Sequence[Any]) -> RunConfig:
    """The configuration with other tasks."""
    return config.model_copy(update={"tasks": tuple(tasks)})


def without_budget(config: RunConfig) -> RunConfig:
    """The configuration without any budget."""
    return config.model_copy(update={"budget": BudgetConfig()})


def _built(holdout: RunConfig) -> list[Task]:
    try:
        return build_tasks(holdout)
    except ConfigError as error:
        raise ConfigError(f"sweep.holdout.{error.field}", error.problem, error.remedy) from None


def _asked(config: RunConfig) -> tuple[str, ...]:
    """The options that the check of the optimizer model depends on."""
    model = config.models.optimizer
    return tuple(
        str(getattr(model, option, "")) for option in ("kind", "base_url", "model", "api_key_env", "api_key_file")
    )
