"""What each command of ``gpo`` does.

Heavy imports wait inside the functions: ``gpo --help`` answers at once, and Ray is loaded only once its environment is
prepared. Each function returns the exit code, and raises ``ConfigError`` for what the user can mend.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cluster import logs
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from actors.folder import Folder
    from cluster.outputs import RunRecord
    from cluster.run_folder import RunFolder
    from cluster.submit_command import SubmitOptions

log = logging.getLogger(__name__)

OK, FAILED, BAD_CONFIG = 0, 1, 2
_out, _err = Console(), Console(stderr=True)


def say(text: str, style: str | None = None) -> None:
    """Print a line for the user, beside what the command itself puts out."""
    if logs.chosen().owns_stderr:
        log.log(logging.ERROR if style == "red" else logging.INFO, "%s", text)
        return
    _err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def choose_logs(chosen: logs.Logs) -> None:
    """Log so from now on; where standard error is for JSON lines, nothing else is printed there."""
    logs.choose(chosen)
    _err.quiet = chosen.owns_stderr


def run(
    config_path: Path,
    overrides: list[str],
    run_dir: str | None,
    resume: bool,
    typed_address: str | None,
    run_id: str | None = None,
) -> int:
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

    if run_id is not None and run_dir is None:
        run_dir = f"{config.run.dir.rstrip('/')}/{_valid_run_id(run_id)}"
    run_id = run_id or new_run_id(config.run.name)
    leases = Leases()
    folder = replace(_run_folder(config.run.dir, config.run.name, run_id, run_dir, resume), leases=leases)
    record = folder.open(config, run_keys(config), tasks, run_id=run_id, resume=resume)
    logs.choose_for(record.run_id, folder.folder.local)
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
    logs.choose_for(run_id, folder.local)
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


def sweep(config_path: Path, overrides: list[str], run_dir: str | None, resume: bool, typed_address: str | None) -> int:
    """``gpo sweep``."""
    from cluster.preflight import check_models
    from cluster.ray_environment import prepare_environment, resolve_address
    from cluster.sweep.loading import load_sweep
    from cluster.sweep.strategies import quiet, require_packages

    config = load_sweep(config_path, overrides)
    require_packages(config.section)
    quiet()
    address = resolve_address(typed_address)
    with _err.status("Asking the endpoints for their models …"):
        for distinct in config.with_other_models:
            asyncio.run(check_models(distinct))

    prepare_environment(address)
    from cluster.run_folder import new_run_id
    from cluster.sweep.carrying_out import carry_out
    from cluster.sweep.outputs import FILES, sweep_table
    from cluster.sweep.place import open_place

    name = f"{config.base.run.name}-sweep"
    sweep_id = new_run_id(name)
    folder = _run_folder(config.base.run.dir, name, sweep_id, run_dir, resume).folder
    place = open_place(folder, config, sweep_id=sweep_id, resume=resume)
    say(f"Sweep {place.sweep_id} in {folder.path('')}")
    document = carry_out(config, place, address, _err)
    _out.print(sweep_table(document))
    if document["confirmation"] is not None:
        _out.print(document["confirmation"]["statement"], highlight=False, markup=False, soft_wrap=True)
    written = folder.names()
    for file, what in FILES.items():
        if file in written:
            _out.print(f"{what + ':':<20} {folder.path(file)}", highlight=False, markup=False, soft_wrap=True)
    if document["status"] in ("interrupted", "budget_exhausted"):
        parts = [part for override in overrides for part in ("--set", override)]
        where = ["--address", typed_address] if typed_address else []
        place_parts = ["--run-dir", str(folder.local or folder.url)]
        command = shlex.join(["gpo", "sweep", str(config_path), *parts, *place_parts, *where, "--resume"])
        ended = "Interrupted" if document["status"] == "interrupted" else f"Stopped by {document['ended_by']}"
        say(f"{ended}; what is done is saved. Go on with: {command}")
    return OK if document["status"] == "completed" and not document["trials"]["failed"] else FAILED


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


def _valid_run_id(run_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}", run_id):
        raise ConfigError("--run-id", f"{run_id!r} cannot be used", "use letters, digits, '.', '_' and '-'")
    return run_id


def submit(
    config_path: Path | None, overrides: list[str], address: str | None, what: SubmitOptions, action: str | None
) -> int:
    """``gpo submit``."""
    from cluster import submit_command
    from cluster.credentials import refuse_credentials

    refuse_credentials("--run-dir", what.run_dir or "")
    if action is not None:
        return submit_command.act(action, what.run_id or "", address, say)
    if config_path is None:
        raise ConfigError("CONFIG", "is missing", "name a YAML file, or use --status or --stop")
    run_id = _valid_run_id(what.run_id) if what.run_id else None
    return submit_command.submit(config_path, overrides, address, replace(what, run_id=run_id), say)


def _folder(field: str, place: str) -> Folder:
    from actors.folder import Folder
    from cluster.credentials import refuse_credentials

    refuse_credentials(field, place)
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


def report(run_dir: str) -> int:
    """``gpo report``."""
    from cluster.report import report as report_page
    from cluster.stored_run import RunReader

    folder = _folder("RUN_DIR", run_dir)
    stored = RunReader(folder).read()
    try:
        folder.write("report.html", report_page(stored.record, stored.document()).encode())
    except (OSError, ImportError, ValueError) as error:
        raise ConfigError(
            "RUN_DIR", f"{folder.path('report.html')!r} cannot be written ({error})", "copy the folder"
        ) from None
    _out.print(folder.path("report.html"), highlight=False, markup=False, soft_wrap=True)
    return OK


def status(run_dir: str, as_document: bool, watch_s: float | None) -> int:
    """``gpo status``."""
    from cluster.status import follow_status, print_status
    from cluster.stored_run import RunReader

    reader = RunReader(_folder("RUN_DIR", run_dir))
    if watch_s is None:
        seen = print_status(reader, _out, as_document)
    else:
        seen = follow_status(reader, _out, as_document, watch_s)
    return OK if seen.is_well else FAILED


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
    from cluster.config.loading import read_overridden, validated
    from cluster.output_file import require_writable
    from cluster.outputs import as_json
    from cluster.plan import CHARACTERS_PER_TOKEN, plan_document, plan_table, planned

    raw = read_overridden(config_path, overrides)
    if output is not None:
        require_writable(output)
    if "sweep" in raw:
        from cluster.sweep.loading import load_sweep
        from cluster.sweep.plan import planned_sweep

        swept = load_sweep(config_path, overrides)
        config, plans = swept.base, planned_sweep(swept)
        say(f"{swept.section.trials} trials, each as dear as the space allows; those that are pruned take less.")
    else:
        config = validated(raw, config_path)
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


def monitor(run_dir: Path | None, port: int) -> int:
    """``gpo monitor``."""
    from cluster.monitor import DASHBOARDS, monitored_run, prometheus

    run = monitored_run(run_dir) if run_dir is not None else None
    with prometheus(run, port) as server:
        say(f"Prometheus is at {server.url}, and watches {run or 'all runs on this machine that have a metrics.port'}.")
        say(f"In Grafana, add a data source of type Prometheus with this address, and import {DASHBOARDS}/*.json.")
        say("Start runs with --set metrics.port=0. Ctrl-C ends this.")
        server.wait()
    return OK
