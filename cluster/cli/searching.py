"""Commands that search: ``run``, ``compare`` and ``sweep``."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.arguments import Address, Config, Overrides, ResultsDir
from cluster.cli.exits import exit_with
from cluster.commands import searching as commands


def run(
    config: Config,
    overrides: Overrides = None,
    run_dir: ResultsDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --run-dir, or with the newest run of this name; what is done is not done "
            "again. Where there is none, a new run starts.",
        ),
    ] = False,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run-id",
            metavar="ID",
            help="What a new run is called, and its folder below run.dir.  [default: its name, the time, four digits]",
            show_default=False,
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Optimize the prompts of every task in CONFIG, one trajectory per task and seed.

    Writes to the run's folder: **summary.json**, **best_prompts.json**, **steps.jsonl** (every candidate),
    **report.html**, **config.yaml** and the checkpoints. Ctrl-C stops cleanly; **--resume** goes on from there.
    """
    exit_with(commands.run, config, overrides or [], run_dir, resume, address, run_id)


def compare(
    config: Config,
    overrides: Overrides = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME|FILE",
            help="A method of **configs/methods/** or a YAML file with a section **optimizer**; can be repeated.  "
            "[default: those in the section **compare** of CONFIG, or gpo, ape, apo, opro, pe2 and sgdm]",
            show_default=False,
        ),
    ] = None,
    run_dir: ResultsDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the comparison in --run-dir, or with the newest one of this name. Where there is none, a "
            "new one starts.",
        ),
    ] = False,
    address: Address = None,
) -> None:
    """Run several methods on the tasks and seeds of CONFIG, and put them side by side.

    All of them share CONFIG's models, tasks, seeds, steps and candidates a step; only what their files say of the
    **optimizer** differs. Writes **comparison.md** and **comparison.json** (means over tasks and seeds with standard
    errors, prompts tried, calls, tokens), and a folder for each method as **gpo run** leaves it. Ctrl-C stops cleanly;
    **--resume** goes on from there.
    """
    exit_with(commands.compare, config, overrides or [], methods or [], run_dir, resume, address)


def sweep(
    config: Config,
    overrides: Overrides = None,
    run_dir: ResultsDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the sweep in --run-dir, or with the newest one of this name, also beside another process "
            "that works on it. Where there is none, a new one starts.",
        ),
    ] = False,
    address: Address = None,
) -> None:
    """Tune the hyperparameters that CONFIG names in its section **sweep**, with Optuna.

    A trial runs all tasks and seeds of CONFIG under one set of hyperparameters; trial 0 is the paper's. Several trials
    run side by side over one evaluator, and those that fall behind are pruned. Several processes may work on one study:
    give them the same **sweep.storage** and **sweep.study**. Writes **sweep.json**, **best_config.yaml** (for **gpo
    run**), **report.html** and a folder for each trial. Ctrl-C stops cleanly; **--resume** goes on from there.
    """
    exit_with(commands.sweep, config, overrides or [], run_dir, resume, address)
