"""``gpo plan`` for a sweep: the cost of all its trials, and of the confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cluster.config import RunConfig
from cluster.evaluating.plan import Expense, TaskPlan, planned
from cluster.sweep.config import SweepConfig
from cluster.sweep.space import Params
from gpo.data.task import Split, Task


def planned_sweep(config: SweepConfig) -> list[TaskPlan]:
    """One plan for each tuning task, over all trials, and one for each held-out task, over both settings.

    Each trial counts as much as the most expensive corner of the space. Pruning lowers the cost, by an amount that
    cannot be predicted.
    """
    plans = [_times(plan, config.section.trials) for plan in _most_expensive(config, _untested(config.tasks))]
    if config.holdout is None:
        return plans
    held_out = config.holdout
    confirmed = [
        planned(_on(config.space.config(params), held_out), config.holdout_tasks) for params in _extremes(config)
    ]
    return [*plans, *(_times(plan, 2) for plan in max(confirmed, key=_calls))]


def _most_expensive(config: SweepConfig, tasks: Sequence[Task]) -> list[TaskPlan]:
    return max((planned(config.space.config(params), tasks) for params in _extremes(config)), key=_calls)


def _extremes(config: SweepConfig) -> list[Params]:
    """Corners with different costs."""
    seen: dict[str, Params] = {}
    for params in [*config.space.corners(), config.space.paper]:
        made = config.space.config(params)
        optimizer, scoring = made.optimizer, made.evaluation.scoring
        costs = f"{optimizer.steps} {optimizer.epochs} {optimizer.candidates} {optimizer.batch_size} {scoring}"
        more = f"{optimizer.direction} {optimizer.refinement}"
        seen.setdefault(f"{costs} {more}", dict(params))
    return list(seen.values())


def _on(config: RunConfig, other: RunConfig) -> RunConfig:
    return config.model_copy(update={"tasks": other.tasks, "run": other.run})


def _untested(tasks: Sequence[Task]) -> list[Task]:
    """The tasks without their ``test`` split, which trials do not score."""
    return [replace(task, examples={**task.examples, Split.TEST: ()}) for task in tasks]


def _calls(plans: Sequence[TaskPlan]) -> int:
    return sum(expense.calls for plan in plans for expense in plan.by_role.values())


def _times(plan: TaskPlan, count: int) -> TaskPlan:
    by_role = {role: sum((expense for _ in range(count)), start=Expense()) for role, expense in plan.by_role.items()}
    return replace(plan, trajectories=plan.trajectories * count, by_role=by_role)
