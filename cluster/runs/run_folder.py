"""A run's folder: the files in it, and whether a run may start or resume there."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.lease import RENEWED_EVERY_S, TERM_S, LeaseHeld, Leases
from actors.search import SearchKey
from cluster.config import RunConfig
from cluster.config.files import read_yaml
from cluster.config.loading import dump, validate
from cluster.config.prompts import PromptRunConfig
from cluster.config.section import first_difference, lasting
from cluster.config.tasks import TaskConfig
from cluster.reporting.examples import page_answers
from cluster.reporting.page import report
from cluster.results.answers import encoded_examples, examples_name
from cluster.results.averages import families_of
from cluster.results.outputs import as_json, as_json_lines, best_prompts, step_line, step_lines, summary
from cluster.results.run_record import RunRecord
from cluster.results.stored_run import finished_at, json_object, restore_totals
from cluster.runs.fingerprints import fingerprints_of_functions, require_same_functions
from cluster.runs.stop_file import withdraw_stop
from gpo.data.task import Task, fingerprint
from gpo.errors import ConfigError, StorageError
from gpo.text import without_controls
from gpo.trajectory import Step

log = logging.getLogger(__name__)

_PAUSE_S = 1.0


def new_run_id(name: str) -> str:
    """The run's name, the time in UTC, and four random digits."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def require_run_id(run_id: str) -> None:
    """Check that a run ID can be the name of a folder.

    Raises:
        ConfigError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}", run_id):
        raise ConfigError("--run-id", f"{run_id!r} cannot be used", "use letters, digits, '.', '_' and '-'")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Reads and writes a run's files.

    Attributes:
        leases: take the folder's lease when a run is opened; nothing is written after the lease is lost. ``None``
            where no other process can write there.
    """

    folder: Folder
    leases: Leases | None = None

    @property
    def checkpoints(self) -> CheckpointStore:
        """The checkpoints of the trajectories."""
        return CheckpointStore(self.folder / "trajectories", self.leases.fence(self.folder) if self.leases else None)

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here; ``open`` checks that it may be resumed."""
        return read_file(self.folder, "config.yaml") is not None

    def with_known_prompts(self, config: RunConfig) -> RunConfig:
        """The configuration with the prompts that the run here took from an earlier run, so that it is not read again.

        Raises:
            ConfigError: the folder cannot be read, or its configuration is damaged.
        """
        stored = self._stored_config()
        known = {task.name: task.prompt for task in stored.tasks} if stored else {}
        tasks = tuple(_with_known_prompts(task, known.get(task.name)) for task in config.tasks)
        return config.model_copy(update={"tasks": tasks})

    def open(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        *,
        run_id: str,
        resume: bool,
        is_tested: bool = True,
        began: float | None = None,
    ) -> RunRecord:
        """Start a run here, or resume the run that is here.

        Args:
            tasks: loaded and checked; a resumed run needs the same examples as before.
            run_id: of a new run.
            resume: whether a run may be here already.
            is_tested, began: see ``RunRecord``.

        Raises:
            ConfigError: a run is here and ``resume`` is false, or it has another configuration or other data; another
                process works in the folder; or the folder cannot be written to.
            StorageError: a checkpoint cannot be read, or is damaged.
        """
        config = config.with_prompts(tasks)
        fingerprints = {task.name: fingerprint(task) for task in tasks}
        functions = fingerprints_of_functions(config, tasks)
        exists = self._exists(config, fingerprints, resume=resume)
        if self.leases is not None:
            take_lease(self.leases, self.folder)
            exists = self._exists(config, fingerprints, resume=resume)  # another process may have started and finished
        steps = {task.name: config.num_steps(task) for task in tasks}
        num_steps = {SearchKey(task.name, seed): steps[task.name] for task in config.tasks for seed in config.run.seeds}
        record = RunRecord(
            run_id,
            started_at=time.time() - (0.0 if began is None else time.monotonic() - began),
            began=began,
            keys=tuple(num_steps),
            num_steps=num_steps,
            stopping=config.stop.build(),
            is_tested=is_tested,
        )
        if exists:
            self._restore(record)
            require_same_functions(
                json_object(read_file(self.folder, "functions.json")),
                functions,
                where=f"the run in {self.folder.url!r}",
                remedy="start a new run in another folder",
            )
        record.families, record.config = families_of(tasks), dump(config)
        try:
            withdraw_stop(self.folder)
            self._write("config.yaml", record.config.encode())
            self._write("data.json", as_json(fingerprints))
            self._write("functions.json", as_json(functions))
            if config.record.answers != "none":
                for task in tasks:
                    self._write(examples_name(task.name), encoded_examples(task))
            self.save(record)
        except StorageError as error:
            raise ConfigError("--run-dir", str(error), "name another folder") from None
        return record

    def _exists(self, config: RunConfig, fingerprints: Mapping[str, str], *, resume: bool) -> bool:
        """Whether a run is here that may be resumed."""
        stored = self._stored_config()
        if stored is None:
            self._require_no_checkpoints()
            return False
        if not resume:
            raise ConfigError(
                "--run-dir",
                f"{self.folder.url!r} holds a run already",
                "add --resume to resume it, or name another folder",
            )
        self._require_same(config, fingerprints, stored)
        return True

    def _require_no_checkpoints(self) -> None:
        """Refuse checkpoints without a configuration: they may be of another task, whose scores do not compare."""
        checkpoints = self.folder / "trajectories"
        try:
            found = checkpoints.names()
        except (OSError, ImportError, ValueError):
            return  # writing to the folder reports the problem
        if found:
            raise ConfigError(
                "--run-dir",
                f"{checkpoints.url!r} holds checkpoints, but there is no 'config.yaml' that describes their run",
                "restore that file, or name another folder",
            )

    def _stored_config(self) -> RunConfig | None:
        content = read_file(self.folder, "config.yaml")
        if content is None:
            return None
        try:
            sections = read_yaml(content.decode())
            meta_prompt = sections.get("optimizer", {}).get("meta_prompt", {})
            if meta_prompt.get("text") is not None:
                meta_prompt["template"] = None  # the file may have another text now
            return validate(sections, base_dir=Path.cwd())
        except (yaml.YAMLError, ConfigError, ValueError, AttributeError, TypeError):
            raise ConfigError(
                "--run-dir",
                f"{self.folder.path('config.yaml')!r} is damaged or from another version of gpo",
                "restore the file, or name another folder",
            ) from None

    def _require_same(self, config: RunConfig, fingerprints: Mapping[str, str], stored: RunConfig) -> None:
        """Refuse other settings or other data than before: the scores would not compare."""
        if difference := first_difference(lasting(stored), lasting(config)):
            field, old, new = difference
            raise ConfigError(
                field,
                f"the run in {self.folder.url!r} has {_shown(old)}, not {_shown(new)}",
                "resume with its own configuration, or start a new run in another folder",
            )
        known = json_object(read_file(self.folder, "data.json"))
        for index, (task, digest) in enumerate(fingerprints.items()):
            if known.get(task, digest) != digest:
                raise ConfigError(
                    f"tasks[{index}].data",
                    f"the examples of {task!r} are not those that the run in {self.folder.url!r} began with",
                    "restore the files, or start a new run",
                )

    def _restore(self, record: RunRecord) -> None:
        """Continue where the last attempt stopped: ``summary.json`` for time and cost, checkpoints for all else."""
        known = json_object(read_file(self.folder, "summary.json"))
        record.run_id = without_controls(str(known.get("run_id") or record.run_id))
        if not restore_totals(record, known):
            where = self.folder.path("summary.json")
            log.warning("%s cannot be read; start, duration and cost of the run are counted from now", where)
        for key in record.keys:
            checkpoint = self.checkpoints.load(key)
            if checkpoint is not None:
                record.checkpoints[key] = checkpoint
        if record.is_complete:
            record.finished_at = finished_at(known)

    def append_step(self, record: RunRecord, key: SearchKey, step: Step) -> None:
        """Append a step to ``steps.jsonl``, where the folder is local; ``save`` rewrites the file in order."""
        local = self.folder.local
        if local is None:
            return
        try:
            self._require_held()
            with (local / "steps.jsonl").open("ab") as file:
                file.write(as_json_lines([step_line(record, key, step)]))
        except OSError as error:
            raise StorageError(f"{self.folder.path('steps.jsonl')} cannot be written: {error}") from None

    def summary(self, record: RunRecord) -> dict[str, Any]:
        """The content of ``summary.json``."""
        return summary(record, {"started_at": _iso(record.started_at), "finished_at": _iso(record.finished_at)})

    def write_summary(self, document: Mapping[str, Any]) -> None:
        """Write ``summary.json``; safe in any thread.

        Raises:
            StorageError: it could not be written.
        """
        self._write("summary.json", as_json(document))

    def save(self, record: RunRecord) -> None:
        """Write every file except the checkpoints, ``summary.json`` first; the report only when the run has ended.

        Raises:
            StorageError: a file could not be written.
        """
        document = self.summary(record)
        self.write_summary(document)
        self._write("steps.jsonl", as_json_lines(step_lines(record)))
        self._write("best_prompts.json", as_json(best_prompts(record)))
        if record.status not in ("pending", "running"):  # it takes seconds; ``gpo report`` writes it at any time
            self._write("report.html", report(record, document, page_answers(self.folder, record)).encode())

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._require_held()
        except (OSError, ImportError, ValueError) as error:
            raise StorageError(f"{self.folder.path(name)} cannot be written: {error}") from None
        write_file(self.folder, name, content)

    def _require_held(self) -> None:
        if self.leases is not None and (fence := self.leases.fence(self.folder)):
            self.folder.with_retries(fence.check)


def read_file(folder: Folder, name: str) -> bytes | None:
    """Read a file in the folder that ``--run-dir`` names; ``None`` where there is no such file.

    Raises:
        ConfigError: the folder cannot be read.
    """
    try:
        return folder.read(name)
    except ImportError as error:  # names the package that fsspec needs
        raise ConfigError(
            "--run-dir",
            f"{folder.url!r} cannot be read ({error})",
            "install that package (the extra 's3' brings what s3:// needs), or name another folder",
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            "--run-dir", f"{folder.url!r} cannot be read ({error})", "name a folder or fsspec URL"
        ) from None


def write_file(folder: Folder, name: str, content: bytes) -> None:
    """Write a file of results.

    Raises:
        StorageError: it could not be written.
    """
    try:
        folder.write(name, content)
    except (OSError, ImportError, ValueError) as error:
        raise StorageError(f"{folder.path(name)} cannot be written: {error}") from None


def take_lease(leases: Leases, folder: Folder) -> None:
    """Take a folder for this process.

    A lease whose holder may have died with its machine is awaited until it expires or is renewed: a retry on another
    node starts at once, and would be refused otherwise.

    Raises:
        ConfigError: another process works there, or the folder cannot be written to.
    """
    until: float | None = None
    while True:
        try:
            leases.take(folder)
            return
        except LeaseHeld as held:
            if held.until is None or (until is not None and held.until != until):
                raise ConfigError(
                    "--run-dir", str(held), "wait for its end, then add --resume, or name another folder"
                ) from None
            if until is None:
                log.warning("%s; waiting until the lease is renewed or expires", held)
            until = held.until
        except (OSError, ImportError, ValueError) as error:
            raise ConfigError(
                "--run-dir", f"{folder.url!r} cannot be written ({error})", "name another folder"
            ) from None
        time.sleep(_PAUSE_S)


@asynccontextmanager
async def leased_folder(folder: Folder) -> AsyncGenerator[RunFolder]:
    """Hold the lease of a trial's folder in this context; a process that lost it writes nothing more there.

    The study records which process owns a trial, the lease which process may write. Both are needed: a process that was
    suspended learns from the lease alone that another took its trial over. Where this process owns the trial and
    another holds the lease, that lease is released or expires soon, so this waits for it.

    Raises:
        LeaseHeld: another process keeps renewing the lease.
        OSError: the folder cannot be read or written.
    """
    leases, deadline = Leases(), time.monotonic() + TERM_S + RENEWED_EVERY_S
    try:
        while True:
            try:
                await asyncio.to_thread(leases.take, folder)
                break
            except LeaseHeld:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_S)
        yield RunFolder(folder, leases)
    finally:
        await asyncio.to_thread(leases.release)


def _with_known_prompts(task: TaskConfig, known: object) -> TaskConfig:
    if not isinstance(task.prompt, PromptRunConfig) or not isinstance(known, PromptRunConfig):
        return task
    is_same = known == task.prompt.model_copy(update={"prompts": known.prompts})
    return task.model_copy(update={"prompt": known}) if is_same else task


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


def latest_run(parent: Folder, name: str) -> Folder | None:
    """The newest run of this name below a folder: ``--resume`` without ``--run-dir`` resumes it.

    Raises:
        ConfigError: the folder cannot be listed.
    """
    of_this_name = re.compile(re.escape(name) + r"-\d{8}-\d{6}-[0-9a-f]{4}")
    try:
        runs = [entry for entry in parent.names() if of_this_name.fullmatch(entry)]
    except (OSError, ImportError, ValueError) as error:
        raise ConfigError(
            "run.dir", f"{parent.url!r} cannot be read ({error})", "name a folder or fsspec URL"
        ) from None
    return parent / runs[-1] if runs else None


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
