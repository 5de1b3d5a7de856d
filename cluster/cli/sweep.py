"""``gpo sweep``."""

from __future__ import annotations

import time
from dataclasses import replace
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


def sweep(
    config_path: Config,
    overrides: Overrides = None,
    run_dir: ResultsDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue or join the sweep in --run-dir; without --run-dir, the newest one with the name in "
            "**run.name**. Several processes can work on it at the same time. If there is none, start a new sweep.",
        ),
    ] = False,
    address: Address = None,
    deadline: Deadline = None,
    budget_ok: BudgetOk = False,
) -> int:
    """Tune the options that **sweep.space** in CONFIG names, with Optuna.

    Example: **gpo sweep configs/sweeps/quickstart.yaml --set sweep.trials=8**

    Each trial runs all tasks and seeds of CONFIG with one set of values; trial 0 has the paper's values. Trials run in
    parallel, and trials with low scores are stopped early (pruned). Several processes can share one sweep: give them
    the same **sweep.storage** and **sweep.study**. Writes **sweep.json**, **best_config.yaml** (for **gpo run**),
    **report.html** and a folder per trial. Ctrl-C or **gpo stop** saves all finished work and stops; **--resume**
    continues.
    """
    began = time.monotonic()
    from cluster.session.ray_environment import prepare_environment, resolve_address
    from cluster.sweep.config import load_sweep
    from cluster.sweep.samplers import quiet, require_packages

    config = load_sweep(config_path, overrides or [])
    config = replace(config, base=with_deadline(config.base, deadline))
    require_packages(config.section)
    quiet()
    ray_address = resolve_address(address)
    from cluster.runs.run_folder import new_run_id
    from cluster.session.budget import TimeLimit
    from cluster.sweep.folder import SweepFolder, worked_s

    name = f"{config.base.run.name}-sweep"
    sweep_id = new_run_id(name)
    folder = results_folder(config.base.run.dir, name, sweep_id, run_dir, resume).folder
    limit = TimeLimit(config.base.budget.wall_s, began - worked_s(folder))
    refused = {} if limit.is_over else check_endpoints(*config.with_other_models, tasks=config.tasks)

    prepare_environment(ray_address)
    from cluster.sweep.results import FILES, sweep_table
    from cluster.sweep.session import run_sweep

    sweep_folder = SweepFolder.open(folder, config, sweep_id=sweep_id, resume=resume, began=began)
    say(f"Sweep {sweep_folder.sweep_id} in {folder.path('')}")
    document = run_sweep(config, sweep_folder, ray_address, err, refused)
    out.print(sweep_table(document))
    if document["confirmation"] is not None:
        show(document["confirmation"]["statement"])
    written = folder.names()
    for file, what in FILES.items():
        if file in written:
            show(f"{what + ':':<20} {folder.path(file)}")
    if document["status"] in ("interrupted", "budget_exhausted"):
        typed = [str(config_path), *repeated("--set", overrides or [])]
        command = resume_command("sweep", folder, typed, address)
        ended = "Interrupted" if document["status"] == "interrupted" else f"Stopped by {document['ended_by']}"
        say(f"{ended}; finished work is saved. Resume with: {command}")
    is_done = is_success(document["status"], budget_ok=budget_ok)
    return OK if is_done and not document["trials"]["failed"] else FAILED
