"""``gpo evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import Config, Overrides
from cluster.cli.terminal import OK, err, out
from gpo.runtime.preloading import preload


def evaluate(
    config_path: Config,
    overrides: Overrides = None,
    task: Annotated[
        str | None, typer.Option(help="Task of the configuration.  [default: the first]", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Prompt to score.  [default: the task's initial prompt]", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="**train**, **val** or **test**.")] = "val",
    output: Annotated[
        Path | None,
        typer.Option(help="Also write the score, with that of each example, to this JSON file.", show_default=False),
    ] = None,
) -> int:
    """Score one prompt on one task and split, in this process, without Ray and without optimizing.

    Example: **gpo evaluate configs/quickstart.yaml --task language --prompt "Name the language."**
    """
    preload("cluster.evaluating.evaluate")
    from cluster.config import load_config
    from cluster.evaluating.evaluate import evaluate_prompt, report_evaluation
    from cluster.evaluating.score import require_writable

    config = load_config(config_path, overrides or [])
    if output is not None:
        require_writable(output)
    report_evaluation(evaluate_prompt(config, task, prompt, split, err), out, output)
    return OK
