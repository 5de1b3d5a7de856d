"""``gpo plan``: estimates what a run would take, before anything is started or paid for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from rich import box
from rich.text import Text

from cluster.config import RunConfig
from cluster.config.models import ChatEndpointConfig, EmbeddedChatConfig, FunctionChatConfig
from cluster.config.run import OwnScoringConfig, StopConfig
from cluster.display.console import FittingTable
from gpo.data.task import Split, Task
from gpo.evaluation.metrics import Rubric
from gpo.models.protocol import Message
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.strategies.batches import TrainBatches
from gpo.strategies.meta_prompt import Brief
from gpo.strategies.parts import chosen_parts
from gpo.strategies.rules import search_rules
from gpo.trajectory import Candidate, Direction, Failure

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English; the models' own tokenizers are not used."""
_OF_PROGRAMS = "A program may call models as often as it wants; one call for each example is counted for: {}."
_TEXT_TOKENS = 150
"""Assumed tokens of a reflection or summary, and of an answer that is shown in one."""


@dataclass(frozen=True, slots=True)
class Expense:
    """Calls of one model, and their tokens; expenses can be added.

    Attributes:
        calls: upper bound, without retries.
        prompt_tokens: estimate for all calls.
        completion_tokens: upper bound by ``max_tokens``; ``None`` if nothing bounds them.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int | None = 0

    def __add__(self, other: Expense) -> Expense:
        mine, theirs = self.completion_tokens, other.completion_tokens
        return Expense(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            None if mine is None or theirs is None else mine + theirs,
        )


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What one task takes, for all seeds together."""

    task: str
    trajectories: int
    steps: int
    by_role: dict[str, Expense]


def planned(config: RunConfig, tasks: Sequence[Task]) -> list[TaskPlan]:
    """The plan of each task, by the formula in ``docs/how-to/costs.md``, with every candidate a new prompt."""
    return [_task_plan(config, task) for task in tasks]


def _task_plan(config: RunConfig, task: Task) -> TaskPlan:
    settings = config.optimizer
    train, val, test = (task.examples[split] for split in (Split.TRAIN, Split.VAL, Split.TEST))
    steps, updates = config.num_steps(task), config.num_updates(task)
    # Of several prompts, a candidate has one request for each that it rewrites.
    rewritten = sum(len(chosen_parts(task.parts, step, steps, ())) if task.parts else 1 for step in range(updates))
    reflects = settings.direction.form == "score_reflection"
    batches = TrainBatches(len(train), settings.batch_size, seed=0)
    answered = sum(len(batches(step)) for step in range(updates)) if settings.direction.answers_train else 0
    most_answers = config.evaluation.scoring.most_answers
    scored = most_answers(len(val), updates, settings.candidates)
    first = settings.candidates if task.starts_from_goal else len(task.given)
    if first:
        scored += most_answers(len(val), 1, first) - most_answers(len(val), 0, first)
    answers = scored + len(test) * (2 if steps else 1) + answered
    rounds = 1 if task.answer_format.rounds == 1 or task.scorer.follow_up(val[0]) is None else 2
    samples = settings.candidates * rewritten * (settings.refinement.max_samples if settings.refinement.enforce else 1)
    reflections = updates * reflects + max(0, steps - 1) * (settings.direction.trajectory.kind == "summary")
    asked = _tokens(message for example in val for message in task.answer_format.messages(task.initial, example)) / len(
        val
    )
    seeds = len(config.run.seeds)

    def expense(
        role: ChatEndpointConfig | EmbeddedChatConfig | FunctionChatConfig, calls: int, tokens_each: float
    ) -> Expense:
        bound = role.bounded_sampling.max_tokens if isinstance(role, EmbeddedChatConfig) else role.sampling.max_tokens
        return Expense(
            seeds * calls, ceil(seeds * calls * tokens_each), None if bound is None else seeds * calls * bound
        )

    by_role = {
        "task": expense(config.models.task, rounds * answers, asked + (rounds - 1) * _TEXT_TOKENS / 2),
        "optimizer": expense(config.models.optimizer, samples, _meta_prompt_tokens(config, task, updates))
        + expense(config.models.optimizer, first * task.starts_from_goal, _goal_tokens(config, task))
        + expense(config.models.optimizer, reflections, asked * settings.direction.failures + _TEXT_TOKENS),
    }
    if isinstance(task.scorer, Rubric):
        by_role["judge"] = expense(
            config.models.judging, answers, _tokens(task.scorer.messages("", val[0])) + _TEXT_TOKENS
        )
    return TaskPlan(task.name, seeds, steps, by_role)


def _meta_prompt_tokens(config: RunConfig, task: Task, steps: int) -> float:
    """Tokens of one meta-prompt with all its prompts and exemplars, all as long as the initial prompt."""
    settings = config.optimizer
    candidate = Candidate(Prompt(task.initial.text), Score((0.5,)))
    train = task.examples[Split.TRAIN]
    answer = "." * (_TEXT_TOKENS * CHARACTERS_PER_TOKEN)
    shown = min(settings.direction.failures, settings.batch_size) * (settings.direction.form == "feedback")
    failures = tuple(Failure.abridged(example.input, example.target, answer) for example in train[:shown])
    past = (candidate,) * min(settings.direction.num_neighbours, max(0, steps - 1) * settings.candidates)
    brief = Brief(
        candidate,
        Direction(past, (None,) * len(past), failures=failures),
        settings.schedule.build(max(1, steps))(0),
        train[: config.meta_prompt.exemplars],
        task.answer_format.position,
        goal=task.goal,
        rules=search_rules(task),
    )
    return _tokens(config.meta_prompt.build(settings.refinement, settings.direction.form).messages(brief))


def _goal_tokens(config: RunConfig, task: Task) -> float:
    """Tokens of one request for a prompt from the goal."""
    exemplars, position = task.examples[Split.TRAIN][: config.meta_prompt.exemplars], task.answer_format.position
    initial = Candidate(task.initial, Score((0.5,)))
    brief = Brief(initial, Direction(), None, exemplars, position, goal=task.goal, rules=search_rules(task))
    return _tokens(config.meta_prompt.build_first().messages(brief))


def _tokens(messages: Iterable[Message]) -> float:
    return sum(len(message["content"]) for message in messages) / CHARACTERS_PER_TOKEN


def cost_usd(config: RunConfig, role: str, expense: Expense) -> float | None:
    """Upper bound in dollars, by the model's price; ``None`` if completions cost something and are not bounded."""
    model = config.models.judging if role == "judge" else getattr(config.models, role)
    if isinstance(model, EmbeddedChatConfig):
        return 0.0
    if isinstance(model, FunctionChatConfig):
        return None
    price = model.price
    if expense.completion_tokens is None and price.completion:
        return None
    return (expense.prompt_tokens * price.prompt + (expense.completion_tokens or 0) * price.completion) / 1e6


def plan_document(config: RunConfig, plans: Sequence[TaskPlan]) -> dict[str, Any]:
    """The plan as JSON: bounds on calls, generated tokens and dollars, and an estimate of tokens sent."""
    return {
        "tasks": [
            {
                "task": plan.task,
                "trajectories": plan.trajectories,
                "steps": plan.steps,
                "llm": {
                    role: {**asdict(expense), "cost_usd": cost_usd(config, role, expense)}
                    for role, expense in plan.by_role.items()
                },
            }
            for plan in plans
        ]
    }


def plan_table(config: RunConfig, plans: Sequence[TaskPlan]) -> FittingTable:
    """A table of what each task and model takes, with totals."""
    # Which candidates drop out of a race, and when a search stops, is not known in advance.
    scoring = config.evaluation.scoring
    counted = "but task calls are counted as if every candidate answered all of val."
    raced, own = f"evaluation.scoring is racing, {counted}", f"evaluation.scoring is your own, {counted}"
    stopped = "stop is set, but calls are counted as if every trajectory took all its steps."
    captions = [raced] * (scoring.kind == "racing") + [own] * isinstance(scoring, OwnScoringConfig)
    programs = [task.name for task in config.tasks if task.program is not None]
    captions += [_OF_PROGRAMS.format(", ".join(programs))] * bool(programs)
    captions += [stopped] * (config.stop != StopConfig())
    table = FittingTable(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="\n".join(captions) or None,
        caption_justify="left",
    )
    for heading in ("Task", "Seeds", "Steps", "Model", "Calls", "Tokens sent", "generated", "US$"):
        is_word = heading in ("Task", "Model")
        table.add_column(heading, justify="left" if is_word else "right", no_wrap=heading != "Task", overflow="fold")
    total: dict[str, Expense] = {}
    for plan in plans:
        for index, (role, expense) in enumerate(plan.by_role.items()):
            total[role] = total.get(role, Expense()) + expense
            first = (Text(plan.task), str(plan.trajectories), str(plan.steps)) if index == 0 else ("", "", "")
            table.add_row(*first, role, *_cells(config, role, expense))
    table.add_section()
    for index, (role, expense) in enumerate(total.items() if len(plans) > 1 else ()):
        table.add_row("all tasks" if index == 0 else "", "", "", role, *_cells(config, role, expense))
    return table


def _cells(config: RunConfig, role: str, expense: Expense) -> tuple[str, str, str, str]:
    cost = cost_usd(config, role, expense)
    generated = "not bounded" if expense.completion_tokens is None else f"≤ {_short(expense.completion_tokens)}"
    return (
        f"≤ {expense.calls:,}",
        f"≈ {_short(expense.prompt_tokens)}",
        generated,
        "not bounded" if cost is None else f"≤ {cost:,.2f}" if cost else "–",
    )


def _short(count: int) -> str:
    """A number with about three digits: 950, 12.3 k, 4.6 M, 1.2 G. ``--output`` has the exact number."""
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return str(count)
