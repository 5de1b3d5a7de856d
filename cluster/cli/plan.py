"""``gpo plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import Config, Overrides
from cluster.cli.terminal import OK, out, say
from gpo.runtime.preloading import preload


def plan(
    config_path: Config,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Also write the plan to this JSON file.", show_default=False)
    ] = None,
) -> int:
    """Estimate what **gpo run** or **gpo sweep** would take: calls, tokens and dollars per task and model.

    Example: **gpo plan configs/quickstart.yaml --set run.seeds=[0,1,2]**

    Loads and checks the configuration and the data, calls no model and starts nothing. Prices come from the option
    **price** of each model.
    """
    preload("cluster.evaluating.plan")
    from cluster.config.loading import read_overridden, validate_run_file
    from cluster.evaluating.plan import CHARACTERS_PER_TOKEN, plan_document, plan_table, planned
    from cluster.evaluating.score import require_writable, write_output
    from cluster.results.outputs import as_json
    from cluster.session.models import build_tasks

    raw = read_overridden(config_path, overrides or [])
    if output is not None:
        require_writable(output)
    if "sweep" in raw:
        from cluster.sweep.config import load_sweep
        from cluster.sweep.plan import planned_sweep

        swept = load_sweep(config_path, overrides or [])
        config, plans = swept.base, planned_sweep(swept)
        say(f"{swept.section.trials} trials, each as expensive as the space allows; pruned trials take less.")
    else:
        config = validate_run_file(raw, config_path)
        plans = planned(config, build_tasks(config, say))
    out.print(plan_table(config, plans))
    say(
        "Calls are upper bounds: candidates that repeat a prompt are not scored again. Retries come on top. "
        f"Tokens sent are estimated at {CHARACTERS_PER_TOKEN} characters each."
    )
    if output is not None:
        write_output(output, as_json(plan_document(config, plans)))
    return OK
