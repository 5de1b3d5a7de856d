"""``gpo evaluate``: one prompt on one task and split, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from cluster.config import RunConfig
from cluster.config.models import EmbeddedChatConfig, FunctionChatConfig
from cluster.display.progress import percent_with_interval
from cluster.evaluating.score import write_output
from cluster.results.intervals import score_interval
from cluster.results.outputs import as_json
from cluster.results.warnings import score_warnings
from cluster.session.in_process import embedded_urls
from cluster.session.interrupts import run_interruptibly
from cluster.session.models import Access, Role, build_evaluators, build_task, embedded_spec
from cluster.session.preflight import check_models, explained_refusal
from gpo.data.task import Split
from gpo.errors import ConfigError, ModelRefused
from gpo.evaluation.evaluator import Evaluation
from gpo.evaluation.metrics import Rubric
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Spent
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.runtime.preloading import preload
from gpo.score import finite

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A prompt and its evaluation."""

    task: str
    split: Split
    prompt: Prompt
    evaluation: Evaluation


def evaluate_prompt(
    config: RunConfig, task: str | None, prompt: str | None, split_name: str, console: Console
) -> Evaluated:
    """Score a prompt; this process serves embedded models meanwhile.

    Args:
        config: the run's configuration.
        task: name of a task. Default: the first.
        prompt: the prompt. Default: the task's initial prompt.
        split_name: ``train``, ``val`` or ``test``.
        console: shows what the process waits for.

    Raises:
        ConfigError: there is no such task or split, or the data or a model cannot be used.
        EvaluationError: too many examples stayed unscored, or a user's function failed.
    """
    names = [entry.name for entry in config.tasks]
    chosen = task or names[0]
    if chosen not in names:
        raise ConfigError("--task", f"{chosen!r} is not in the configuration", f"choose one of: {', '.join(names)}")
    if split_name not in list(Split):
        raise ConfigError("--split", f"{split_name!r} is unknown", f"choose one of: {', '.join(Split)}")
    split = Split(split_name)
    if prompt is not None and not prompt.strip():
        raise ConfigError("--prompt", "is empty", "write a prompt, or leave the option out")
    index = names.index(chosen)
    loaded = build_task(config, index)
    is_judged = isinstance(loaded.scorer, Rubric)
    scored = Prompt(prompt.strip()) if prompt else loaded.initial
    problem = loaded.prompt_problem(scored)
    if problem is not None:
        raise ConfigError("--prompt", problem, "write the placeholders and headings as in the task's initial prompt")
    models = [config.models.task, *([config.models.judging] if is_judged else [])]
    with console.status("Checking the models …"):
        if not all(isinstance(model, FunctionChatConfig) for model in models):
            preload("gpo.models.client")
        roles: tuple[Role, ...] = ("task", "judge") if is_judged else ("task",)
        checked = asyncio.run(
            check_models(config, [loaded], roles, prompt=scored, split=split, say=partial(_say, console))
        )
    for warning in checked.warnings:
        _say(console, f"Warning: {warning}.", style="yellow")

    with console.status("Starting the embedded model …"):
        urls = embedded_urls([embedded_spec(model) for model in models if isinstance(model, EmbeddedChatConfig)])
    access = Access(urls, LocalLimiter(), budget_name="evaluation", refused=checked.refused)
    (evaluator,) = build_evaluators(config, [loaded], access)
    with console.status(f"Scoring on {len(loaded.examples[split])} examples …"):
        try:
            (evaluation,) = run_interruptibly(_within_budget(config, access, evaluator.evaluate([scored], split)))
        except ModelRefused as refusal:
            raise explained_refusal(config, refusal) from None
    counted = replace(
        evaluation,
        usage=checked.counted("task", evaluation.usage),
        judge=checked.counted("judge", evaluation.judge),
    )
    return Evaluated(chosen, split, scored, counted)


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


async def _within_budget(config: RunConfig, access: Access, work: Awaitable[_T]) -> _T:
    await access.limiter.open_budget(access.budget_name, config.budget.build(), Spent())
    return await work


def report_evaluation(evaluated: Evaluated, console: Console, output: Path | None) -> None:
    """Print the score, and write it to the output file, if any.

    Raises:
        ConfigError: the file cannot be written.
    """
    score, usage, judge = evaluated.evaluation.score, evaluated.evaluation.usage, evaluated.evaluation.judge
    is_judged = judge != Usage()
    unscored = f", {score.num_unscored} unscored" if score.num_unscored else ""
    console.print(
        f"{evaluated.task} {evaluated.split}: {percent_with_interval(score)}, "
        f"{score.num_examples} examples{unscored}, {shown_cost(usage)}"
        + (f"; judge: {shown_cost(judge)}" if is_judged else ""),
        highlight=False,
        soft_wrap=True,
    )
    for warning in score_warnings(score, f"this prompt on {evaluated.split}"):
        _say(console, f"Warning: {warning}.", style="yellow")
    if output is None:
        return
    document = {
        "task": evaluated.task,
        "split": evaluated.split.value,
        "prompt": evaluated.prompt.text,
        "mean": finite(score.mean),
        "stderr": finite(score.stderr),
        "interval": score_interval(score),
        "scored": len(score.scored),
        "values": list(score.values_E),
        "flaws": asdict(score.flaws),
        "usage": asdict(usage),
        "judge": asdict(judge) if is_judged else None,
    }
    write_output(output, as_json(document))


def shown_cost(usage: Usage) -> str:
    """What calls cost, in words."""
    cached = f" ({usage.cached} more were cached)" if usage.cached else ""
    return f"{usage.requests} calls{cached}, {usage.prompt_tokens} + {usage.completion_tokens} tokens"
