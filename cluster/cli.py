"""The ``gpo`` command.

Heavy imports wait inside the commands: ``gpo --help`` answers at once, and Ray is loaded only once its environment is
prepared.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cluster.interrupts import stoppable
from gpo.errors import ConfigError, GPOError

if TYPE_CHECKING:
    from cluster.outputs import RunRecord
    from cluster.run_folder import RunFolder

OK, FAILED, BAD_CONFIG = 0, 1, 2

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
_out, _err = Console(), Console(stderr=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpo {version('distributed-gpo')}")
        raise typer.Exit(OK)


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take the options of the command itself; the help text stands with the application."""


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
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="local|auto|HOST:PORT",
            help="The Ray cluster: **local** starts one on this machine for this run, **auto** finds the one that "
            "runs here.  [default: RAY_ADDRESS, or else local]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Optimize the prompts of every task in CONFIG, one trajectory per task and seed.

    Writes to the run's folder: **summary.json**, **best_prompts.json**, **steps.jsonl** (every candidate),
    **report.html**, **config.yaml** and the checkpoints. Ctrl-C stops cleanly; **--resume** goes on from there.
    """
    _exit_with(_run, config, overrides or [], run_dir, resume, address)


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
    _exit_with(_evaluate, config, overrides or [], task, prompt, split, output)


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
    _exit_with(_score, answers, parser, output)


@app.command()
def serve(
    config: Config,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond loopback, GPO_SERVE_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="local|auto|HOST:PORT",
            help="The Ray cluster, as for **gpo run**.  [default: RAY_ADDRESS, or else local]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the evaluator of CONFIG's tasks over HTTP, until Ctrl-C.

    **POST /v1/evaluate** scores a prompt on a task and split; **/docs** and **/openapi.json** describe it. Where the
    variable **GPO_SERVE_TOKEN** is set, every request needs it as a bearer token; on a cluster that runs already, it
    must be set where the cluster was started.
    """
    _exit_with(_serve, config, overrides or [], host, port, address)


def main() -> None:
    """Entry point of the console script."""
    app()


def _exit_with(command: Any, *arguments: Any) -> None:
    """Run the command; its errors become one clear line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with stoppable():
            code = command(*arguments)
    except ConfigError as error:
        _say_error(error)
        code = BAD_CONFIG
    except GPOError as error:
        _say_error(error)
        code = FAILED
    except KeyboardInterrupt:
        _say("Interrupted.")
        code = FAILED
    raise typer.Exit(code)


def _say(text: str, style: str | None = None) -> None:
    _err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _say_error(error: GPOError) -> None:
    _say(f"gpo: error: {error}", style="red")


def _run(config_path: Path, overrides: list[str], run_dir: str | None, resume: bool, address: str | None) -> int:
    from cluster.build import build_tasks
    from cluster.config import load_config
    from cluster.preflight import check_models
    from cluster.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides)
    address = resolve_address(address)
    tasks = build_tasks(config)
    asyncio.run(check_models(config))

    prepare_environment(address)
    from cluster.progress import view_for
    from cluster.run import Run, run_keys
    from cluster.run_folder import fingerprint, new_run_id

    run_id = new_run_id(config.run.name)
    folder = _run_folder(config.run.dir, config.run.name, run_id, run_dir, resume)
    fingerprints = {task.name: fingerprint(task) for task in tasks}
    record = folder.open(config, run_keys(config), fingerprints, run_id=run_id, resume=resume)
    _say(f"Run {record.run_id} in {folder.folder.path('')}")
    interrupted = False
    with view_for(_err) as view:
        try:
            Run(config, tasks, record, folder).execute(address, view)
        except KeyboardInterrupt:
            interrupted = True
    _show_results(record, folder)
    if interrupted:
        _say(f"Interrupted; what is done is saved. Go on with: {_resume_command(folder, config_path)}")
    return OK if record.status == "completed" else FAILED


def _resume_command(folder: RunFolder, config_path: Path) -> str:
    """What to type. A local run folder holds the run's own configuration, --set options included."""
    place = folder.folder
    config = place.path("config.yaml") if place.local else str(config_path)
    return shlex.join(["gpo", "run", config, "--run-dir", str(place.local or place.url), "--resume"])


def _run_folder(parent: str, name: str, run_id: str, run_dir: str | None, resume: bool) -> RunFolder:
    from actors.folder import Folder
    from cluster.run_folder import RunFolder, latest_run

    if run_dir is not None:
        if not run_dir.strip():
            raise ConfigError("--run-dir", "is empty", "name a folder, or leave the option out")
        return RunFolder(Folder.at(run_dir))
    newest = latest_run(Folder.at(parent), name) if resume else None
    return RunFolder(newest or Folder.at(parent) / run_id)


def _show_results(record: RunRecord, folder: RunFolder) -> None:
    from cluster.results import results_table, written_files

    _out.print(results_table(record))
    for line in written_files(folder.folder):
        _out.print(line, highlight=False, markup=False, soft_wrap=True)


def _evaluate(
    config_path: Path, overrides: list[str], task: str | None, prompt: str | None, split: str, output: Path | None
) -> int:
    from cluster.config import load_config
    from cluster.evaluate import evaluate_prompt, report_evaluation
    from cluster.output_file import require_writable

    config = load_config(config_path, overrides)
    if output is not None:
        require_writable(output)
    evaluated = evaluate_prompt(config, task, prompt, split, _err)
    report_evaluation(evaluated, _out, output)
    return OK


def _score(answers: Path, parser: str, output: Path | None) -> int:
    from cluster.score import require_other_file, scored_answers, summary_lines, write_scored

    if output is not None:
        require_other_file(output, answers)
    scored = scored_answers(answers, parser)
    write_scored(scored, output)
    for line in summary_lines(scored):
        _say(line)
    return OK


def _serve(config_path: Path, overrides: list[str], host: str, port: int, address: str | None) -> int:
    from cluster.build import build_tasks
    from cluster.config import load_config
    from cluster.preflight import check_models
    from cluster.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides)
    address = resolve_address(address)
    tasks = build_tasks(config)
    asyncio.run(check_models(config))

    prepare_environment(address)
    from cluster.serve_command import serve_evaluator

    serve_evaluator(config, tasks, host, port, address, _err)
    return OK


if __name__ == "__main__":
    main()
