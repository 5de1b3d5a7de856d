"""``cluster.launch``: a run on a Ray cluster, from Python."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.folder import Folder
from cluster.api.background import BackgroundRun, RunOnRay, address_here
from cluster.api.handle import RunHandle
from cluster.api.job import made_submission, rows_folder, submitted
from cluster.api.keywords import Arguments, named_by_arguments
from cluster.api.optimize import optimize_async
from cluster.api.run import folder_at, run_id_for
from cluster.config import RunConfig, load_config
from cluster.config.loading import validate
from cluster.runs.run_folder import RunFolder, new_run_id, require_run_id
from cluster.submitting.submission import Submission
from gpo.errors import ConfigError
from gpo.events import OnEvent

log = logging.getLogger(__name__)

_OWN = ("run_dir", "progress", "on_event", "options")
_KEYWORDS = {
    name: parameter.default
    for name, parameter in inspect.signature(optimize_async).parameters.items()
    if name not in _OWN
}
"""The arguments of ``gpo.optimize`` that describe a run, and their defaults."""


def launch(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    address: str | None = None,
    overrides: str | Sequence[str] = (),
    run_dir: str | Path | None = None,
    run_id: str | None = None,
    progress: bool = False,
    on_event: OnEvent | None = None,
    **arguments: Any,
) -> RunHandle:
    """Start a run on a Ray cluster, and return a handle of it: ``status()``, ``wait()``, ``stop()``, ``result()``.

    It returns when the configuration, the data and the models are checked; with the address of a dashboard, when the
    job is submitted. The same call with the same ``run_dir`` or ``run_id`` continues a run that was interrupted.

    Without the address of a dashboard, a thread of this process drives the run. When the program ends before the run,
    the run is stopped, so wait for it.

    Args:
        config: a YAML file as for ``gpo run``, or the same sections as a dictionary. Without it, ``arguments`` describe
            the run.
        address: ``http://HOST:8265``, the cluster's dashboard, submits a job as ``gpo submit`` does, with the working
            directory. ``auto``, ``HOST:6379`` or ``local`` are those of ``gpo run``. Default: the cluster that this
            process is connected to, or else ``RAY_ADDRESS``, or else ``local``.
        overrides: options of the file to override, as for ``--set``: ``["optimizer.steps=3"]``.
        run_dir: folder of the run, or a URL such as ``s3://BUCKET/PATH``; all nodes must reach it. Default: a folder
            named after the run ID, in ``run.dir``.
        run_id: the run's ID. Default: a new one.
        progress: show the progress here. Not for a job.
        on_event: called in this process; see ``gpo.optimize``. Not for a job.
        arguments: those of ``gpo.optimize``. Functions travel by name: the cluster's processes import them. Examples
            that are objects are written to the run's folder, or shipped with the job.

    Raises:
        ConfigError: an argument, the configuration, the data, a model or the address cannot be used.
        ClusterError: the cluster refuses the job.
    """
    texts = [overrides] if isinstance(overrides, str) else list(overrides)
    values = _values(config, texts, arguments)
    named = None if run_dir is None else str(run_dir)
    if named is not None:
        folder_at(named)
    if address is not None and address.startswith(("http://", "https://")):
        for name, value in (("progress", progress), ("on_event", on_event)):
            if value:
                raise ConfigError(name, "needs a run in this process, and a job is another one", "leave it out")
        return submitted(
            lambda made: _submission(config, texts, values, made, run_id, named),
            address,
            has_configuration=values is None,
        )
    with named_by_arguments(has_configuration=values is None):
        where = address_here(address)
        loaded, folder, run_id = _prepared(config, texts, values, run_id, named)
    run = BackgroundRun(RunOnRay(loaded, folder, run_id, where, progress, on_event), has_configuration=values is None)
    run.start()
    return run


def _values(config: object, overrides: Sequence[str], arguments: Mapping[str, Any]) -> Arguments | None:
    """The arguments that describe a run; ``None`` where a configuration does.

    Raises:
        ConfigError: both do, or neither does, or a function cannot be imported.
    """
    if overrides and not isinstance(config, str | Path):
        raise ConfigError("overrides", "change the options of a file, and there is none", "set the options themselves")
    if config is not None:
        if arguments:
            raise ConfigError(
                next(iter(arguments)), "is set as well as config", "set it in the configuration, or leave config out"
            )
        return None
    if not arguments:
        raise ConfigError("config", "is missing", "name a YAML file, or pass the arguments of gpo.optimize")
    options = {name: value for name, value in arguments.items() if name not in _KEYWORDS}
    known = {name: value for name, value in arguments.items() if name in _KEYWORDS}
    values = Arguments({**_KEYWORDS, **known, "options": options})
    values.require_importable()
    return values


def _submission(
    config: str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    values: Arguments | None,
    made: Path,
    run_id: str | None,
    run_dir: str | None,
) -> Submission:
    if values is not None:
        rows = rows_folder(made)
        sections = values.sections(rows)
        values.save_rows(rows, is_new=True)
        return made_submission(sections, made, run_id=run_id, run_dir=run_dir)
    if isinstance(config, Mapping):
        return made_submission(config, made, run_id=run_id, run_dir=run_dir)
    return Submission.checked(Path(str(config)), overrides, run_id=run_id, run_dir=run_dir, say=log.info)


def _prepared(
    config: str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    values: Arguments | None,
    run_id: str | None,
    run_dir: str | None,
) -> tuple[RunConfig, Folder, str]:
    """The checked configuration, the run's folder, and the ID that a new run gets."""
    if run_id is not None:
        require_run_id(run_id)
    if values is not None:
        name = run_id or new_run_id(str(values.values["name"]))
        folder = folder_at(run_dir or f"runs/{name}")
        loaded = values.configuration(folder)
        values.save_rows(folder, is_new=not RunFolder(folder).holds_run)
        return loaded, folder, run_id or (run_id_for(folder) if run_dir else name)
    loaded = validate(config, Path.cwd()) if isinstance(config, Mapping) else load_config(Path(str(config)), overrides)
    name = run_id or new_run_id(loaded.run.name)
    return loaded, folder_at(run_dir or f"{loaded.run.dir.rstrip('/')}/{name}"), name
