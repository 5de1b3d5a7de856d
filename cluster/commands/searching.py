"""Commands that search: ``run``, ``compare`` and ``sweep``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.commands.exit_codes import FAILED, OK
from cluster.commands.places import repeated, results_folder, resume_command, valid_run_id
from cluster.commands.terminal import ask_for_models, err, out, say, show
from cluster.display import logs

if TYPE_CHECKING:
    from cluster.results.run_record import RunRecord
    from cluster.runs.run_folder import RunFolder


def run(
    config_path: Path,
    overrides: list[str],
    run_dir: str | None,
    resume: bool,
    typed_address: str | None,
    run_id: str | None = None,
) -> int:
    """``gpo run``."""
    from cluster.config import load_config
    from cluster.session.models import build_tasks
    from cluster.session.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides)
    address = resolve_address(typed_address)
    tasks = build_tasks(config)
    ask_for_models(config)

    prepare_environment(address)
    from actors.lease import Leases
    from cluster.display.progress import view_for
    from cluster.runs.run import Run
    from cluster.runs.run_folder import new_run_id
    from cluster.session.session import Session

    if run_id is not None and run_dir is None:
        run_dir = f"{config.run.dir.rstrip('/')}/{valid_run_id(run_id)}"
    run_id = run_id or new_run_id(config.run.name)
    leases = Leases()
    folder = replace(results_folder(config.run.dir, config.run.name, run_id, run_dir, resume), leases=leases)
    record = folder.open(config, tasks, run_id=run_id, resume=resume)
    logs.choose_for(record.run_id, folder.folder.local)
    say(f"Run {record.run_id} in {folder.folder.path('')}")
    interrupted = False
    with leases, view_for(err) as view:
        try:
            with Session(config, tasks, name=f"gpo-{record.run_id}", address=address, view=view) as session:
                Run(config, tasks, record, folder).execute(session, view)
        except KeyboardInterrupt:
            interrupted = True
    _show_results(record, folder)
    place = folder.folder
    # A local folder holds the run's own configuration, --set options included.
    typed = [place.path("config.yaml")] if place.local else [str(config_path), *repeated("--set", overrides)]
    command = resume_command("run", place, typed, typed_address)
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
    from cluster.config.comparison import load_comparison
    from cluster.session.models import build_tasks, require_room_to_decay
    from cluster.session.ray_environment import prepare_environment, resolve_address

    loaded = load_comparison(config_path, overrides, methods)
    base = loaded.base
    address = resolve_address(typed_address)
    tasks = build_tasks(base)
    for config in loaded.methods.values():
        require_room_to_decay(config, tasks)
    ask_for_models(base)

    prepare_environment(address)
    from actors.lease import Leases
    from cluster.comparing.compare import ComparisonFolder, run_comparison
    from cluster.comparing.table import comparison_tables, save_comparison
    from cluster.display.progress import view_for
    from cluster.runs.run_folder import new_run_id
    from cluster.session.session import Session

    name = f"{base.run.name}-compare"
    run_id = new_run_id(name)
    folder = results_folder(base.run.dir, name, run_id, run_dir, resume).folder
    leases = Leases()
    place = ComparisonFolder(folder, leases)
    comparison = place.open(loaded.methods, tasks, run_id=run_id, resume=resume)
    logs.choose_for(run_id, folder.local)
    say(f"Comparing {', '.join(loaded.methods)} in {folder.path('')}")
    interrupted = False
    with leases, view_for(err) as view:
        try:
            with Session(base, tasks, name=f"gpo-{run_id}", address=address, view=view) as session:
                run_comparison(comparison, place, session, view)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            leases.require_held()
            written = save_comparison(comparison, folder)
    for table in comparison_tables(comparison, out.width):
        out.print(table)
    for run in comparison.methods:
        if run.record.ended_by:
            say(f"{run.name}: stopped by {run.record.ended_by}")
        for key, error in run.record.errors.items():
            say(f"{run.name}: {key} failed: {error}", style="red")
    for line in written:
        show(line)
    if interrupted:
        typed = [str(config_path), *repeated("--set", overrides)]
        command = resume_command("compare", folder, typed, typed_address, repeated("--method", methods))
        say(f"Interrupted; what is done is saved. Go on with: {command}")
    return OK if comparison.status == "completed" else FAILED


def sweep(config_path: Path, overrides: list[str], run_dir: str | None, resume: bool, typed_address: str | None) -> int:
    """``gpo sweep``."""
    from cluster.session.ray_environment import prepare_environment, resolve_address
    from cluster.sweep.loading import load_sweep
    from cluster.sweep.strategies import quiet, require_packages

    config = load_sweep(config_path, overrides)
    require_packages(config.section)
    quiet()
    address = resolve_address(typed_address)
    ask_for_models(*config.with_other_models)

    prepare_environment(address)
    from cluster.runs.run_folder import new_run_id
    from cluster.sweep.folder import SweepFolder
    from cluster.sweep.results import FILES, sweep_table
    from cluster.sweep.session import run_sweep

    name = f"{config.base.run.name}-sweep"
    sweep_id = new_run_id(name)
    folder = results_folder(config.base.run.dir, name, sweep_id, run_dir, resume).folder
    place = SweepFolder.open(folder, config, sweep_id=sweep_id, resume=resume)
    say(f"Sweep {place.sweep_id} in {folder.path('')}")
    document = run_sweep(config, place, address, err)
    out.print(sweep_table(document))
    if document["confirmation"] is not None:
        show(document["confirmation"]["statement"])
    written = folder.names()
    for file, what in FILES.items():
        if file in written:
            show(f"{what + ':':<20} {folder.path(file)}")
    if document["status"] in ("interrupted", "budget_exhausted"):
        typed = [str(config_path), *repeated("--set", overrides)]
        command = resume_command("sweep", folder, typed, typed_address)
        ended = "Interrupted" if document["status"] == "interrupted" else f"Stopped by {document['ended_by']}"
        say(f"{ended}; what is done is saved. Go on with: {command}")
    return OK if document["status"] == "completed" and not document["trials"]["failed"] else FAILED


def _show_results(record: RunRecord, folder: RunFolder) -> None:
    from cluster.results.table import acceptance_line, results_table, unscored_line, written_files

    out.print(results_table(record))
    for line in filter(None, (acceptance_line(record), unscored_line(record))):
        show(line)
    for line in written_files(folder.folder):
        show(line)
