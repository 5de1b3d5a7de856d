"""``gpo show``."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import RunDir, folder_at
from cluster.cli.terminal import OK, out
from cluster.cli.terminal import show as line
from gpo.errors import ConfigError


def show(
    run_dir: RunDir,
    task: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="Task to show.", show_default="the first")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Seed of the search.", show_default="the one with the best prompt"),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            metavar="best|initial|ID",
            help="Prompt whose answers are shown beside the initial prompt's. An ID may be shortened.",
        ),
    ] = "best",
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="OUTCOME",
            help="Only examples that are **broken**, **fixed**, **wrong**, **right**, **unscored** (the call "
            "failed) or **unasked**.",
            show_default="all",
        ),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            "--example",
            metavar="SPLIT/N",
            help="One example as a whole, such as **val/3**; numbers begin with 1.",
            show_default="a table of all",
        ),
    ] = None,
    prompts: Annotated[bool, typer.Option("--prompts", help="List the prompts with their IDs and scores.")] = False,
) -> int:
    """Show what the task model answered in the run in RUN_DIR, with the initial and with the best prompt.

    Example: **gpo show runs/quickstart --only broken**

    The option **record** of the configuration says whose answers are kept.
    """
    from cluster.results.answers import OUTCOMES, SearchAnswers, prompt_id
    from cluster.results.shown_answers import answers_table, example_lines, prompts_table
    from cluster.results.stored_run import RunReader

    if only is not None and only not in OUTCOMES:
        raise ConfigError("--only", f"{only!r} is unknown", f"choose one of: {', '.join(OUTCOMES)}")
    folder = folder_at("RUN_DIR", run_dir)
    record = RunReader(folder).read().record
    tasks = list(dict.fromkeys(key.task for key in record.keys))
    chosen = task or (tasks[0] if tasks else "")
    if chosen not in tasks:
        raise ConfigError("--task", f"{chosen!r} is not in the run", f"choose one of: {', '.join(tasks) or 'none'}")
    best = record.best_by_task().get(chosen)
    keys = {key.seed: key for key in record.checkpoints if key.task == chosen}
    if best is None or (seed is not None and seed not in keys):
        known = ", ".join(map(str, sorted(keys))) or "none has a score yet"
        raise ConfigError("--seed", f"there is no search of {chosen!r} with that seed", f"seeds: {known}")
    key = best[0] if seed is None else keys[seed]
    checkpoint = record.checkpoints[key]
    if prompts:
        out.print(prompts_table(key, checkpoint))
        return OK
    answers = SearchAnswers.read(folder, key)
    if not answers.by_prompt:
        raise ConfigError(
            "RUN_DIR", f"no answers of {key} are recorded", "run with record.answers: chosen, the default, or all"
        )
    before, after = prompt_id(checkpoint, "initial"), prompt_id(checkpoint, prompt)
    compared = answers.compared(before, after)
    if after not in answers.by_prompt:
        raise ConfigError("--prompt", f"the answers to {prompt!r} are not recorded", "run with record.answers: all")
    if example is not None:
        for text in example_lines(compared, example):
            line(text)
        return OK
    shown = [one for one in compared if only in (None, one.outcome)]
    out.print(answers_table(key, compared, shown))
    return OK
