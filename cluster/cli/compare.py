"""``gpo compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import Address, Config, Overrides, ResultsDir, repeated, results_folder, resume_command
from cluster.cli.terminal import FAILED, OK, check_endpoints, err, out, say, show
from cluster.display import logs


def compare(
    config_path: Config,
    overrides: Overrides = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME|FILE",
            help="Method to compare: a name in **configs/methods/**, or a YAML file with a section **optimizer**. Can "
            "be repeated.  [default: those in the section **compare** of CONFIG, or else gpo, ape, apo, opro, pe2 and "
            "sgdm]",
            show_default=False,
        ),
    ] = None,
    run_dir: ResultsDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume the comparison in --run-dir, or else the newest one of this name. Starts a new one if there "
            "is none.",
        ),
    ] = False,
    address: Address = None,
) -> int:
    """Run several methods on the tasks and seeds of CONFIG, and compare their results.

    Example: **gpo compare configs/quickstart.yaml --method gpo --method ape**

    All methods share CONFIG's models, tasks, seeds, steps and candidates per step; they differ only in the section
    **optimizer** of their files. Writes **comparison.md** and **comparison.json** (means over tasks and seeds with
    intervals, prompts tried, calls, tokens), and for each method a folder like that of **gpo run**. Ctrl-C or
    **gpo stop** stops cleanly; **--resume** continues from the checkpoints.
    """
    from cluster.config.comparison import load_comparison
    from cluster.session.models import build_tasks, check_strategies
    from cluster.session.ray_environment import prepare_environment, resolve_address

    loaded = load_comparison(config_path, overrides or [], methods or [])
    base = loaded.base
    ray_address = resolve_address(address)
    tasks = build_tasks(base, say)
    for config in loaded.methods.values():
        check_strategies(config, tasks)
    refused = check_endpoints(base, tasks=tasks)

    prepare_environment(ray_address)
    from actors.lease import Leases
    from cluster.comparing.compare import ComparisonFolder, run_comparison
    from cluster.comparing.table import comparison_tables, save_comparison
    from cluster.display.live_view import view_for
    from cluster.runs.run_folder import new_run_id
    from cluster.session.session import Session

    name = f"{base.run.name}-compare"
    run_id = new_run_id(name)
    folder = results_folder(base.run.dir, name, run_id, run_dir, resume).folder
    leases = Leases()
    comparison_folder = ComparisonFolder(folder, leases)
    comparison = comparison_folder.open(loaded.methods, tasks, run_id=run_id, resume=resume)
    logs.choose_for(run_id, folder.local)
    say(f"Comparing {', '.join(loaded.methods)} in {folder.path('')}")
    interrupted = False
    with leases, view_for(err) as view:
        try:
            session = Session(base, tasks, name=f"gpo-{run_id}", address=ray_address, view=view, refused=refused)
            with session:
                run_comparison(comparison, comparison_folder, session, view)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            leases.require_held()
            written = save_comparison(comparison, folder)
    for table in comparison_tables(comparison, out.width):
        out.print(table)
    for method in comparison.methods:
        if method.record.ended_by:
            say(f"{method.name}: stopped by {method.record.ended_by}")
        for key, error in method.record.errors.items():
            say(f"{method.name}: {key} failed: {error}", style="red")
    for line in written:
        show(line)
    if interrupted:
        typed = [str(config_path), *repeated("--set", overrides or [])]
        command = resume_command("compare", folder, typed, address, repeated("--method", methods or []))
        say(f"Interrupted; finished work is saved. Resume with: {command}")
    return OK if comparison.status == "completed" else FAILED
