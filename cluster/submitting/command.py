"""What ``gpo submit`` does, from the configuration to the driver's exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.commands.exit_codes import BAD_CONFIG
from cluster.config import RunConfig
from cluster.config.loading import read_overridden, validated
from cluster.runs.run_folder import new_run_id
from cluster.session.models import build_tasks
from cluster.submitting.jobs import Jobs, Order, exit_code, require_reachable
from cluster.submitting.keys import require_no_key_files
from cluster.submitting.kubectl import apply
from cluster.submitting.kubernetes import manifest
from cluster.submitting.package import Package, package, require_not_shipped
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.sweep.loading import SweepConfig

Say = Callable[[str], None]
_COMMANDS = {False: "run", True: "sweep"}
"""By ``--sweep``."""


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What was typed, but for the configuration; see ``gpo submit --help``."""

    sweep: bool = False
    run_id: str | None = None
    run_dir: str | None = None
    follow: bool = False
    wait: bool = False
    kubernetes: bool = False
    apply: bool = False
    image: str | None = None
    namespace: str = "gpo"


def submit(config_path: Path, overrides: list[str], address: str | None, options: SubmitOptions, say: Say) -> int:
    """Check what can be checked here, ship it and start the job; the exit code.

    Raises:
        ConfigError: the configuration, its data or the address cannot be used, or a key would be shipped.
        ClusterError: the cluster refuses the job, or goes out of reach.
    """
    config, sweep = _checked(config_path, overrides, options)
    run_id = options.run_id or new_run_id(config.run.name)
    require_reachable(*(("--run-dir", options.run_dir) if options.run_dir else ("run.dir", config.run.dir)))
    run_dir = options.run_dir or f"{config.run.dir.rstrip('/')}/{run_id}"
    root = Path.cwd().resolve()
    # A RayJob has nothing of the configuration's folder either, wherever that lies.
    for folder in (root, config_path.resolve().parent) if options.kubernetes else (root,):
        require_not_shipped(config, sweep.section if sweep else None, folder)
        require_no_key_files(config, folder)
    if options.kubernetes:
        order = Order(_COMMANDS[options.sweep], "", overrides, run_id, run_dir)
        if config.cache.kind == "sqlite" and config.cache.path is None:
            say(
                "cache.kind is sqlite: each pod has a file of its own, which ends with it; a later attempt pays again "
                "for what was in no checkpoint. With a Redis beside it: --set cache.kind=redis (see k8s/README.md)."
            )
        objects = manifest(config_path, config, sweep, order, image=options.image, namespace=options.namespace)
        if options.apply:
            apply(objects)
        else:
            print(objects.text, end="")  # noqa: T201
        return 0
    shipped = package(root, config_path, sweep.together if sweep else config)
    for path in shipped.beyond:
        say(f"{path} lies outside of this folder and is not shipped; every node must have it")
    jobs = Jobs(address)
    place = config_path.resolve().relative_to(root).as_posix()
    order = Order(_COMMANDS[options.sweep], place, overrides, run_id, run_dir)
    return _carry_on(jobs, order, shipped, options, say)


def _checked(config_path: Path, overrides: list[str], options: SubmitOptions) -> tuple[RunConfig, SweepConfig | None]:
    """The configuration of the run, or below a sweep's trials; its data is loaded and checked, too."""
    raw = read_overridden(config_path, overrides)
    if options.sweep:
        from cluster.sweep.loading import load_sweep

        sweep = load_sweep(config_path, overrides)
        return sweep.base, sweep
    if "sweep" in raw:
        raise ConfigError("sweep", "is a search for hyperparameters", "submit it with: --sweep")
    config = validated(raw, config_path)
    build_tasks(config)
    return config, None


def _carry_on(jobs: Jobs, order: Order, shipped: Package, options: SubmitOptions, say: Say) -> int:
    before = jobs.attempts(order.run_id)
    if before and not before[-1].status.is_terminal():
        job_id = str(before[-1].submission_id)
        say(f"Job {job_id} carries this run on already")
    else:
        job_id = jobs.submit(order, shipped)
        goes_on = " to go on with the run" if before else ""
        say(f"Submitted job {job_id}{goes_on}: {len(shipped.names)} files, {shipped.num_bytes / 1e6:.1f} MB")
    if not (options.follow or options.wait):
        say(f"How it does: gpo submit --status {order.run_id} --address {jobs.address}")
        return 0
    try:
        job = jobs.follow(job_id, lambda text: print(text, end="", flush=True)) if options.follow else jobs.wait(job_id)  # noqa: T201
    except KeyboardInterrupt:
        say(f"The job goes on. Stop it with: gpo submit --stop {order.run_id} --address {jobs.address}")
        raise
    code = exit_code(job)
    reason = f": {job.message}" if code and not options.follow else ""  # it repeats the end of the output
    say(f"Job {job_id} {job.status.value.lower()}, exit code {code}{reason}")
    if code == BAD_CONFIG:
        say(
            "The cluster refused what passed here. Keys and endpoints are looked up there: variables such as "
            "OPENAI_API_KEY are never shipped, and must be set where the cluster's nodes are started."
        )
    return code


def act(action: str, run_id: str, address: str | None, say: Say) -> int:
    """``--status`` and ``--stop``; the exit code is 0 unless the job failed.

    Raises:
        ConfigError: there is no such job.
    """
    jobs = Jobs(address)
    job_id = jobs.newest(run_id)
    if action == "stop":
        stopped = jobs.stop(job_id)
        job = jobs.wait(job_id)
        say(f"Job {job_id} " + ("was told to stop, and has ended" if stopped else "was not running"))
        say(f"Go on with: gpo submit CONFIG --run-id {run_id} --address {jobs.address}")
        return 0
    job = jobs.info(job_id)
    print(f"{job_id} {job.status.value}: {(job.message or '').partition(chr(10))[0]}")  # noqa: T201
    return exit_code(job) if job.status.is_terminal() else 0
