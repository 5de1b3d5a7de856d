"""The ``gpo`` command.

What a user types, and what ``--help`` says; ``cluster.commands`` does it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import commands
from cluster.interrupts import stoppable
from cluster.logs import Format, Level, Logs, Target
from gpo.errors import ConfigError, GPOError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Optimize prompts by GPO (arXiv:2402.17564), in parallel, on a laptop or a Ray cluster.

    Begin with **gpo run configs/quickstart.yaml**: it needs no key and no network.
    Every command says more with **--help**.

    Exit codes: 0 success, 2 a mistake in the configuration or the command line, 1 anything else.""",
)

Config = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="YAML file; see configs/README.md for what can be in it.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Put a value over the file's, e.g. **--set optimizer.steps=3** or **--set tasks.0.prompt='Think.'**; "
        "can be repeated.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="local|auto|HOST:PORT",
        help="The Ray cluster: **local** starts one on this machine for this command, **auto** finds the one that "
        "runs here.  [default: RAY_ADDRESS, or else local]",
        show_default=False,
    ),
]

RunDir = Annotated[str, typer.Argument(metavar="RUN_DIR", help="Folder or fsspec URL of a run.", show_default=False)]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpo {version('distributed-gpo')}")
        raise typer.Exit(commands.OK)


@app.callback()
def options(
    _show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    log_format: Annotated[
        Format, typer.Option(help="What log lines look like.", envvar="GPO_LOG_FORMAT")
    ] = Format.TEXT,
    log_level: Annotated[
        Level, typer.Option(help="From which severity on something is logged.", envvar="GPO_LOG_LEVEL")
    ] = Level.WARNING,
    log_to: Annotated[
        Target,
        typer.Option(
            help="Where log lines go: **stderr**, or **folder** for a file of each process in **logs/** of the run's "
            "folder. With **json** on **stderr**, nothing else is printed there.",
            envvar="GPO_LOG_TO",
        ),
    ] = Target.STDERR,
) -> None:
    """Take the options of the command itself; the help text stands with the application."""
    commands.choose_logs(Logs(log_format, log_level, log_to))


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Folder or fsspec URL for the results.  [default: a new folder below run.dir]",
            show_default=False,
        ),
    ] = None,
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
    _exit_with(commands.run, config, overrides or [], run_dir, resume, address, run_id)


@app.command()
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
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Folder or fsspec URL for the results.  [default: a new folder below run.dir]",
            show_default=False,
        ),
    ] = None,
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
    _exit_with(commands.compare, config, overrides or [], methods or [], run_dir, resume, address)


@app.command()
def sweep(
    config: Config,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Folder or fsspec URL for the results.  [default: a new folder below run.dir]",
            show_default=False,
        ),
    ] = None,
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
    _exit_with(commands.sweep, config, overrides or [], run_dir, resume, address)


@app.command()
def submit(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="YAML file below this folder.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="URL",
            help="The cluster's dashboard.  [default: RAY_API_SERVER_ADDRESS, or else http://127.0.0.1:8265]",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Run **gpo sweep** rather than **gpo run**.")] = False,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run-id",
            metavar="ID",
            help="Of the run. With that of an earlier run, this goes on with it.  [default: a new one]",
            show_default=False,
        ),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Folder or fsspec URL for the results, which all nodes reach.  [default: ID below run.dir]",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the job's output, and wait for its end.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end, and exit as it did.")] = False,
    status: Annotated[
        str | None, typer.Option("--status", metavar="ID", help="Only say how this run does.", show_default=False)
    ] = None,
    stop: Annotated[
        str | None, typer.Option("--stop", metavar="ID", help="Only stop this run; it can go on.", show_default=False)
    ] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Print a RayJob for KubeRay instead, with a cluster of its own.")
    ] = False,
    image: Annotated[
        str | None, typer.Option("--image", help="Of the RayJob's containers.", show_default=False)
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Of the RayJob.")] = "gpo",
    apply: Annotated[bool, typer.Option("--apply", help="Hand the RayJob to **kubectl apply**.")] = False,
) -> None:
    """Run CONFIG as a job on a Ray cluster that runs elsewhere.

    Ships this folder, but for what **.gitignore** and **.rayignore** name, and never keys: each node of the cluster
    needs those that CONFIG names in its environment. A cluster that asks for a token is told **RAY_AUTH_TOKEN**.
    """
    from cluster.submit_command import SubmitOptions

    asked = status or stop
    options = SubmitOptions(sweep, asked or run_id, run_dir, follow, wait, kubernetes or apply, apply, image, namespace)
    action = "status" if status else "stop" if stop else None
    _exit_with(commands.submit, config, overrides or [], address, options, action)


@app.command()
def report(run_dir: RunDir) -> None:
    """Write **report.html** of the run in RUN_DIR anew: at any time, also while it works."""
    _exit_with(commands.report, run_dir)


@app.command()
def status(
    run_dir: RunDir,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run ends.")] = False,
    every: Annotated[float, typer.Option(metavar="S", help="Seconds between looks with --watch.", min=0.1)] = 2.0,
) -> None:
    """Say how far the run in RUN_DIR is that was started elsewhere: state, steps, scores, spending, last change.

    Exit codes: 0 it is complete or at work, 1 it failed, was stopped or shows no sign of life, 2 there is no run.
    """
    _exit_with(commands.status, run_dir, as_json, every if watch else None)


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the plan to this JSON file, too.", show_default=False)
    ] = None,
) -> None:
    """Say what **gpo run** CONFIG, or **gpo sweep** CONFIG, may take: calls, tokens and dollars of each task and model.

    Loads and checks the configuration and the data; calls no model and starts nothing. Prices come from **price** in
    the sections of **models**.
    """
    _exit_with(commands.plan, config, overrides or [], output)


@app.command()
def evaluate(
    config: Config,
    overrides: Overrides = None,
    task: Annotated[
        str | None, typer.Option(help="Task of the configuration.  [default: the first]", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="The prompt to score.  [default: the task's initial prompt]", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="**train**, **val** or **test**.")] = "val",
    output: Annotated[
        Path | None,
        typer.Option(help="Write the score, with each example's, to this JSON file.", show_default=False),
    ] = None,
) -> None:
    """Score one prompt on one task and split, in this process: no Ray, no search."""
    _exit_with(commands.evaluate, config, overrides or [], task, prompt, split, output)


@app.command()
def score(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines with the fields **dataset**, **task**, **target** and **answer**; others are kept.",
            show_default=False,
        ),
    ],
    parser: Annotated[
        str,
        typer.Option(help="Who reads the answers: **default**, or **paper** for the rules of the published figures."),
    ] = "default",
    output: Annotated[
        Path | None,
        typer.Option(help="Write the scored lines to this file.  [default: standard output]", show_default=False),
    ] = None,
) -> None:
    """Score the recorded answers in FILE: each line again, in order, with its **score** in [0, 1].

    A summary per dataset goes to standard error; where lines hold a **reference_score**, it says how often the two
    agree (texts: to 0.02).
    """
    _exit_with(commands.score, answers, parser, output)


@app.command()
def serve(
    config: Config,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond loopback, GPO_SERVE_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    address: Address = None,
) -> None:
    """Serve the evaluator of CONFIG's tasks over HTTP, until Ctrl-C.

    **POST /v1/evaluate** scores a prompt on a task and split; **/docs** and **/openapi.json** describe it. Where the
    variable **GPO_SERVE_TOKEN** is set, every request needs it as a bearer token; on a cluster that runs already, it
    must be set where the cluster was started.
    """
    _exit_with(commands.serve, config, overrides or [], host, port, address)


@app.command()
def monitor(
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_DIR]", help="Watch this run only.  [default: all runs on this machine]", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Where Prometheus listens, on loopback.", min=1, max=65535)] = 9090,
) -> None:
    """Watch local runs with a Prometheus of their own, until Ctrl-C.

    It finds every run on this machine that was started with **--set metrics.port=0** (or another port), now or later,
    and keeps what it has seen for the next time. Needs the program **prometheus**, as Debian's package of that name has
    it. The dashboards for Grafana are in **k8s/monitoring/dashboards/**.
    """
    _exit_with(commands.monitor, run_dir, port)


def main() -> None:
    """Entry point of the console script."""
    app()


def _exit_with(command: Callable[..., int], *arguments: Any) -> None:
    """Run the command; its errors become one clear line and an exit code."""
    try:
        with stoppable():
            code = command(*arguments)
    except GPOError as error:
        commands.say(f"gpo: error: {error}", style="red")
        code = commands.BAD_CONFIG if isinstance(error, ConfigError) else commands.FAILED
    except KeyboardInterrupt:
        commands.say("Interrupted.")
        code = commands.FAILED
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
