"""``gpo run``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cluster.cli.options import (
    Address,
    BudgetOk,
    Config,
    Deadline,
    Overrides,
    ResultsDir,
    is_success,
    repeated,
    results_folder,
    resume_command,
    with_deadline,
)
from cluster.cli.terminal import FAILED, OK, check_endpoints, err, out, say, show
from cluster.display import logs
from gpo.runtime.preloading import preload


def run(
    config_path: Config,
    overrides: Overrides = None,
    run_dir: ResultsDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --run-dir from its checkpoints; without --run-dir, the newest run with the name "
            "in **run.name**. If there is none, start a new run.",
        ),
    ] = False,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run-id",
            metavar="ID",
            help="ID of a new run, and the name of its folder in run.dir.  [default: NAME-DATE-TIME-xxxx]",
            show_default=False,
        ),
    ] = None,
    address: Address = None,
    deadline: Deadline = None,
    budget_ok: BudgetOk = False,
) -> int:
    """Optimize the prompts of every task in CONFIG, with one trajectory per task and seed.

    Example: **gpo run configs/quickstart.yaml --set optimizer.steps=3**

    Writes **summary.json**, **best_prompts.json**, **steps.jsonl** (every candidate), **report.html**, **config.yaml**
    and the checkpoints to the run folder. Ctrl-C or **gpo stop** saves all finished work and stops; **--resume**
    continues.
    """
    began = time.monotonic()
    preload("cluster.runs.opening")
    from cluster.config import load_config
    from cluster.session.ray_environment import prepare_environment, resolve_address

    config = with_deadline(load_config(config_path, overrides or []), deadline)
    ray_address = resolve_address(address)
    from cluster.runs.opening import Opening
    from cluster.runs.run_folder import new_run_id, require_run_id

    if run_id is not None and run_dir is None:
        require_run_id(run_id)
        run_dir = f"{config.run.dir.rstrip('/')}/{run_id}"
    run_id = run_id or new_run_id(config.run.name)
    run_folder = results_folder(config.run.dir, config.run.name, run_id, run_dir, resume)
    opening = Opening(config, run_folder, say, resume=resume)

    prepare_environment(ray_address)
    from cluster.display.live_view import view_for
    from cluster.results.results_table import closing_lines, results_table, written_files
    from cluster.results.warnings import run_warnings

    refused = check_endpoints(opening.config, tasks=opening.tasks) if opening.is_new else {}
    folder, interrupted = run_folder.folder, False
    with opening.opened(run_id, began) as opened:
        record = opened.record
        logs.choose_for(record.run_id, folder.local)
        say(f"Run {record.run_id} in {folder.path('')}")
        if opened.needs_check:
            refused = check_endpoints(opening.config, tasks=opening.tasks)
        with view_for(err) as view:
            try:
                preload("cluster.session.session")  # imports Ray
                opened.execute_on_ray(ray_address, view, refused)
            except KeyboardInterrupt:
                interrupted = True
    out.print(results_table(record))
    for line in (*closing_lines(record), *written_files(folder)):
        show(line)
    for warning in run_warnings(record):
        say(f"Warning: {warning}.")
    # A local folder holds the run's own configuration, --set options included.
    typed = [folder.path("config.yaml")] if folder.local else [str(config_path), *repeated("--set", overrides or [])]
    command = resume_command("run", folder, typed, address)
    if record.status == "budget_exhausted":
        say(f"Stopped by {record.ended_by}; finished work is saved. With a larger budget, resume with: {command}")
    if interrupted:
        say(f"Interrupted; finished work is saved. Resume with: {command}")
    return OK if is_success(record.status, budget_ok=budget_ok) else FAILED
