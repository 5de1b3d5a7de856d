"""The result of a comparison of methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.config import RunConfig
from cluster.results.averages import Family, alone, families_of, mean_scores
from cluster.results.run_record import RunRecord
from gpo.data.task import Task
from gpo.models.protocol import Usage


@dataclass(frozen=True, slots=True)
class MethodRun:
    """One method's run."""

    name: str
    config: RunConfig
    record: RunRecord

    @property
    def num_prompts(self) -> int:
        """Prompts tried, including the initial ones."""
        return sum(len(checkpoint.trajectory.history) for checkpoint in self.record.checkpoints.values())

    @property
    def total(self) -> Usage:
        """Usage of all its models."""
        return sum(self.record.usage_by_role().values(), start=Usage())

    @property
    def num_tokens(self) -> int:
        """Tokens sent and generated."""
        return self.total.prompt_tokens + self.total.completion_tokens


@dataclass(frozen=True, slots=True)
class Comparison:
    """The methods' runs, on the same tasks and seeds."""

    run_id: str
    tasks: tuple[Task, ...]
    methods: Sequence[MethodRun] = field(default_factory=list[MethodRun])

    @property
    def status(self) -> str:
        """``completed`` if every method is; else the status of the first that is not."""
        return next((run.record.status for run in self.methods if run.record.status != "completed"), "completed")

    @property
    def families(self) -> tuple[Family, ...]:
        """The families of tasks; the last one is all tasks."""
        return families_of(self.tasks)


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The content of ``comparison.json``. Scores are in [0, 1]; see ``mean_scores``."""
    return {
        "run_id": comparison.run_id,
        "status": comparison.status,
        "tasks": [task.name for task in comparison.tasks],
        "methods": [_method(comparison, run) for run in comparison.methods],
    }


def _method(comparison: Comparison, run: MethodRun) -> dict[str, Any]:
    ends = run.record.checkpoints
    *groups, everything = comparison.families
    return {
        "name": run.name,
        "status": run.record.status,
        "seeds": list(run.config.run.seeds),
        "errors": {str(key): error for key, error in run.record.errors.items()},
        **mean_scores(everything, ends),
        "families": {group.name: mean_scores(group, ends) for group in groups},
        "tasks": {task.name: mean_scores(alone(task.name), ends) for task in comparison.tasks},
        "prompts": run.num_prompts,
        "llm": {role: asdict(usage) for role, usage in run.record.usage_by_role().items()},
        "calls": run.total.requests,
        "tokens": run.num_tokens,
        "wall_s": round(run.record.wall_s, 3),
    }
