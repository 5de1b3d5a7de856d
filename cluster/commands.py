"""What each command of ``gpo`` does.

Heavy imports wait inside the functions: ``gpo --help`` answers at once, and Ray is loaded only once its environment is
prepared. Each function returns the exit code, and raises ``ConfigError`` for what the user can mend.
"""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from gpo.errors import ConfigError

if TYPE_CHECKING:
    from actors.folder import Folder
    from cluster.outputs import RunRecord
    from cluster.run_folder import RunFolder

OK, FAILED, BAD_CONFIG = 0, 1, 2
_out, _err = Console(), Console(stderr=True)


def say(text: str, style: str | None = None) -> None:
    """Print a line for the user, beside what the command itself puts out."""
    _err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def run(config_path: Path, overrides: list[str], run_dir: str | None, resume: bool, typed_address: str | None) -> int:
    """``gpo run``."""
    from cluster.build import build_tasks
    from cluster.config import load_config
    from cluster.preflight import check_models
    from cluster.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides)
    address = resolve_address(typed_address)
    tasks = build_tasks(config)
    with _err.status("Asking the endpoints for their models …"):
        asyncio.run(check_models(config))

    prepare_environment(address)
    from actors.leases import Leases
    from cluster.progress import view_for
    from cluster.run import Run, run_keys
    from cluster.run_folder import new_run_id
    from cluster.standing import Standing

    run_id = new_run_id(config.run.name)
    leases = Leases()
    folder = replace(_run_folder(config.run.dir, config.run.name, run_id, run_dir, resume), leases=leases)
    record = folder.open(config, run_keys(config), tasks, run_id=run_id, resume=resume)
    say(f"Run {record.run_id} in {folder.folder.path('')}")
    interrupted = False
    with leases, view_for(_err) as view:
        try:
            with Standing(config, tasks, name=f"gpo-{record.run_id}", address=address, view=view) as standing:
                Run(config, tasks, record, folder).execute(standing, view)
        except KeyboardInterrupt:
            interrupted = True
    _show_results(record, folder)
    command = _resume_command(folder, config_path, overrides, typed_address)
    if record.status == "budget_exhausted":
        say(f"Stopped by {record.ended_by}; what is done is saved. With a larger budget, go on with: {command}")
    if interrupted:
        say(f"Interrupted; what is done is saved. Go on with: {command}")
    return OK if record.status == "completed" else FAILED


def compare(
    config_path: Path,
    overrides: list[str],
    methods: list[str],
    run_dir: str | None,
    resume: bool,
    typed_address: str | None,
) -> int:
    """``gpo compare``."""
    from cluster.build import build_tasks, require_room_to_decay
    from cluster.config.comparison import load_comparison
    from cluster.preflight import check_models
    from cluster.ray_environment import prepare_environment, resolve_address

    loaded = load_comparison(config_path, overrides, methods)
    base = loaded.base
    address = resolve_address(typed_address)
    tasks = build_tasks(base)
    for config in loaded.methods.values():
        require_room_to_decay(config, tasks)
    with _err.status("Asking the endpoints for their models …"):
        asyncio.run(check_models(base))

    prepare_environment(address)
    from actors.leases import Leases
    from cluster.compare import ComparisonFolder, carry_out, open_comparison
    from cluster.comparison_table import comparison_tables, save_comparison
    from cluster.progress import view_for
    from cluster.run_folder import new_run_id
    from cluster.standing import Standing

    name = f"{base.run.name}-compare"
    run_id = new_run_id(name)
    folder = _run_folder(base.run.dir, name, run_id, run_dir, resume).folder
    leases = Leases()
    place = ComparisonFolder(folder, leases)
    comparison = open_comparison(place, loaded.methods, tasks, run_id=run_id, resume=resume)
    say(f"Comparing {', '.join(loaded.methods)} in {folder.path('')}")
    interrupted = False
    with leases, view_for(_err) as view:
        try:
            with Standing(base, tasks, name=f"gpo-{run_id}", address=address, view=view) as standing:
                carry_out(comparison, place, standing, view)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            leases.require_held()
            written = save_comparison(comparison, folder)
    for table in comparison_tables(comparison, _out.width):
        _out.print(table)
    for run in comparison.methods:
        if run.record.ended_by:
            say(f"{run.name}: stopped by {run.record.ended_by}")
        for key, error in run.record.errors.items():
            say(f"{run.name}: {key} failed: {error}", style="red")
    for line in written:
        _out.print(line, highlight=False, markup=False, soft_wrap=True)
    if interrupted:
        parts = [part for override in overrides for part in ("--set", override)]
        parts += [part for method in methods for part in ("--method", method)]
        parts += [
            "--run-dir",
            str(folder.local or folder.url),
            *(["--address", typed_address] if typed_address else []),
        ]
        command = shlex.join(["gpo", "compare", str(config_path), *parts, "--resume"])
        say(f"Interrupted; what is done is saved. Go on with: {command}")
    return OK if comparison.status == "completed" else FAILED


def _resume_command(folder: RunFolder, config_path: Path, overrides: list[str], address: str | None) -> str:
    """What to type. A local run folder holds the run's own configuration, --set options included."""
    place = folder.folder
    if place.local:
        config = [place.path("config.yaml")]
    else:
        config = [str(config_path), *(part for override in overrides for part in ("--set", override))]
    where = ["--address", address] if address else []
    return shlex.join(["gpo", "run", *config, "--run-dir", str(place.local or place.url), *where, "--resume"])


def _run_folder(parent: str, name: str, run_id: str, run_dir: str | None, resume: bool) -> RunFolder:
    from cluster.run_folder import RunFolder, latest_run

    if run_dir is not None:
        if not run_dir.strip():
            raise ConfigError("--run-dir", "is empty", "name a folder, or leave the option out")
        return RunFolder(_folder("--run-dir", run_dir))
    runs = _folder("run.dir", parent)
    newest = latest_run(runs, name) if resume else None
    return RunFolder(newest or runs / run_id)


def _folder(field: str, place: str) -> Folder:
    from actors.folder import Folder

    try:
        return Folder.at(place)
    except (RuntimeError, ValueError) as error:  # no such user's home, a NUL
        raise ConfigError(field, f"{place!r} is no folder ({error})", "name another") from None


def _show_results(record: RunRecord, folder: RunFolder) -> None:
    from cluster.results import acceptance_line, results_table, unscored_line, written_files

    _out.print(results_table(record))
    for line in filter(None, (acceptance_line(record), unscored_line(record))):
        _out.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in written_files(folder.folder):
        _out.print(line, highlight=False, markup=False, soft_wrap=True)


def evaluate(
    config_path: Path, overrides: list[str], task: str | None, prompt: str | None, split: str, output: Path | None
) -> int:
    """``gpo evaluate``."""
    from cluster.config import load_config
    from cluster.evaluate import evaluate_prompt, report_evaluation
    from cluster.output_file import require_writable

    config = load_config(config_path, overrides)
    if output is not None:
        require_writable(output)
    evaluated = evaluate_prompt(config, task, prompt, split, _err)
    report_evaluation(evaluated, _out, output)
    return OK


def plan(config_path: Path, overrides: list[str], output: Path | None) -> int:
    """``gpo plan``."""
    from cluster.build import build_tasks
    from cluster.config import load_config
    from cluster.output_file import require_writable
    from cluster.outputs import as_json
    from cluster.plan import CHARACTERS_PER_TOKEN, plan_document, plan_table, planned

    config = load_config(config_path, overrides)
    if output is not None:
        require_writable(output)
    plans = planned(config, build_tasks(config))
    _out.print(plan_table(config, plans))
    say(
        "Calls are bounds: candidates that repeat a prompt are not scored; failed calls tried again come on top. "
        f"Tokens sent are estimated, at {CHARACTERS_PER_TOKEN} characters each."
    )
    if output is not None:
        try:
            output.write_bytes(as_json(plan_document(config, plans)))
        except OSError as error:
            problem = f"{str(output)!r} cannot be written ({error.strerror})"
            raise ConfigError("--output", problem, "name another") from None
    return OK


def score(answers: Path, parser: str, output: Path | None) -> int:
    """``gpo score``."""
    from cluster.score import require_other_file, scored_answers, summary_lines, write_scored

    if output is not None:
        require_other_file(output, answers)
    scored = scored_answers(answers, parser)
    write_scored(scored, output)
    for line in summary_lines(scored):
        say(line)
    return OK


def serve(config_path: Path, overrides: list[str], host: str, port: int, address: str | None) -> int:
    """``gpo serve``."""
    from cluster.build import build_tasks
    from cluster.config import load_config
    from cluster.preflight import check_models
    from cluster.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides)
    address = resolve_address(address)
    tasks = build_tasks(config)
    with _err.status("Asking the endpoints for their models …"):
        asyncio.run(check_models(config))

    prepare_environment(address)
    from cluster.serve_command import serve_evaluator

    serve_evaluator(config, tasks, host, port, address, _err)
    return OK
