"""A run's folder: what is in it, and whether a run may be started or resumed there."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.lease import LeaseHeld, Leases
from actors.search import SearchKey
from cluster.config import RunConfig
from cluster.config.files import read_yaml
from cluster.config.loading import dump, validate
from cluster.reporting.page import report
from cluster.results.averages import families_of
from cluster.results.outputs import RunRecord, as_json, as_json_lines, best_prompts, step_line, step_lines, summary
from cluster.results.stored_run import json_object, take_over
from gpo.data.task import Task
from gpo.errors import ConfigError, StorageError
from gpo.text import without_controls
from gpo.trajectory import Step

log = logging.getLogger(__name__)

# What may differ between a run and its resumption: it changes where and how fast the work is done, not what comes out.
_FREE = ("run.dir", "cluster", "cache", "budget", "metrics", "tracing", "tracking")
_FREE_OF_MODELS = (
    "base_url", "api_key_env", "api_key_file", "max_concurrency", "requests_per_min", "tokens_per_min", "timeout_s",
    "max_attempts", "patience_s", "price", "check", "parallel", "threads",
)  # fmt: skip


_LOOK_S = 1.0


def new_run_id(name: str) -> str:
    """The run's name, the time in UTC, and four digits against collisions."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Reads and writes a run's files.

    Attributes:
        leases: takes the folder for this process when a run is opened; nothing is written once it is lost. ``None``
            where nobody else can be there.
    """

    folder: Folder
    leases: Leases | None = None

    @property
    def checkpoints(self) -> CheckpointStore:
        """Where the trajectories are saved."""
        return CheckpointStore(self.folder / "trajectories", self.leases.fence(self.folder) if self.leases else None)

    def open(
        self,
        config: RunConfig,
        keys: tuple[SearchKey, ...],
        tasks: Sequence[Task],
        *,
        run_id: str,
        resume: bool,
    ) -> RunRecord:
        """Begin a run here, or go on with the one that is here.

        Args:
            config: as it is now.
            keys: the run's trajectories.
            tasks: loaded and checked; a run that is resumed must have begun with the same examples.
            run_id: of a new run.
            resume: whether a run may be here already.

        Raises:
            ConfigError: there is a run here and ``resume`` was not asked for, or it has another configuration; or
                another process works in the folder, or it cannot be written to.
            StorageError: a checkpoint cannot be read, or is damaged.
        """
        fingerprints = {task.name: fingerprint(task) for task in tasks}
        begun = self._is_begun(config, fingerprints, resume=resume)
        if self.leases is not None:
            take_lease(self.leases, self.folder)
            begun = self._is_begun(config, fingerprints, resume=resume)  # another may have begun, and be done
        record = self._resumed(keys, run_id) if begun else RunRecord(run_id, started_at=time.time(), keys=keys)
        record.families, record.config = families_of(tasks), dump(config)
        try:
            self._write("config.yaml", record.config.encode())
            self._write("data.json", as_json(fingerprints))
            self.save(record)
        except StorageError as error:
            raise ConfigError("--run-dir", str(error), "name another folder") from None
        return record

    def _is_begun(self, config: RunConfig, fingerprints: Mapping[str, str], *, resume: bool) -> bool:
        """Whether there is a run here, which may be gone on with."""
        stored = self._stored_config()
        if stored is None:
            self._require_no_checkpoints()
            return False
        if not resume:
            raise ConfigError(
                "--run-dir",
                f"{self.folder.url!r} holds a run already",
                "add --resume to go on with it, or name another",
            )
        self._require_same(config, fingerprints, stored)
        return True

    def _require_no_checkpoints(self) -> None:
        """Without its configuration, nobody knows what a search was about; its scores must not become this one's."""
        place = self.folder / "trajectories"
        try:
            found = place.names()
        except (OSError, ImportError, ValueError):
            return  # said when it is opened
        if found:
            raise ConfigError(
                "--run-dir",
                f"{place.url!r} holds checkpoints, and no 'config.yaml' beside it says which run's",
                "restore that file, or name another folder",
            )

    def _stored_config(self) -> RunConfig | None:
        content = self._read("config.yaml")
        if content is None:
            return None
        try:
            return validate(read_yaml(content.decode()), base_dir=Path.cwd())
        except (yaml.YAMLError, ConfigError, ValueError, AttributeError, TypeError):
            raise ConfigError(
                "--run-dir",
                f"{self.folder.path('config.yaml')!r} is damaged or of another version, so that it cannot be told "
                "which run this is",
                "restore the file, or name another folder",
            ) from None

    def _require_same(self, config: RunConfig, fingerprints: Mapping[str, str], stored: RunConfig) -> None:
        """Refuse to go on with other settings or other data than before: the scores would not compare."""
        if difference := _difference(stored.model_dump(mode="json"), config.model_dump(mode="json")):
            field, old, new = difference
            raise ConfigError(
                field,
                f"the run in {self.folder.url!r} has {_shown(old)}, not {_shown(new)}",
                "resume with its own configuration",
            )
        known = json_object(self._read("data.json"))
        for index, (task, fingerprint) in enumerate(fingerprints.items()):
            if known.get(task, fingerprint) != fingerprint:
                raise ConfigError(
                    f"tasks[{index}].data",
                    f"the examples of {task!r} are not those that the run in {self.folder.url!r} began with",
                    "restore the files, or start a new run",
                )

    def _resumed(self, keys: tuple[SearchKey, ...], run_id: str) -> RunRecord:
        # The summary only repeats what the checkpoints say; where it is damaged, the run goes on without it.
        known = json_object(self._read("summary.json"))
        record = RunRecord(
            run_id=without_controls(str(known.get("run_id") or run_id)), started_at=time.time(), keys=keys
        )
        if not take_over(record, known):
            where = self.folder.path("summary.json")
            log.warning("%s cannot be read; start, duration and cost of the run are counted from now", where)
        for key in keys:
            checkpoint = self.checkpoints.load(key)
            if checkpoint is not None:
                record.checkpoints[key] = checkpoint
        return record

    def append_step(self, key: SearchKey, step: Step) -> None:
        """Show a step in ``steps.jsonl`` at once, where the folder is local; ``save`` writes the file in order."""
        local = self.folder.local
        if local is None:
            return
        try:
            self._require_held()
            with (local / "steps.jsonl").open("ab") as file:
                file.write(as_json_lines([step_line(key, step)]))
        except OSError as error:
            raise StorageError(f"{self.folder.path('steps.jsonl')} cannot be written: {error}") from None

    def save_summary(self, record: RunRecord) -> dict[str, Any]:
        """Write ``summary.json``; its content.

        Raises:
            StorageError: it could not be written.
        """
        document = self.summary(record)
        self.write_summary(document)
        return document

    def summary(self, record: RunRecord) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return summary(record, {"started_at": _iso(record.started_at), "finished_at": _iso(record.finished_at)})

    def write_summary(self, document: Mapping[str, Any]) -> None:
        """Write ``summary.json``, in any thread.

        Raises:
            StorageError: it could not be written.
        """
        self._write("summary.json", as_json(document))

    def save(self, record: RunRecord) -> None:
        """Write every file but the checkpoints; the report once the sitting is over.

        Raises:
            StorageError: a file could not be written; ``summary.json`` comes first.
        """
        document = self.save_summary(record)
        self._write("steps.jsonl", as_json_lines(step_lines(record)))
        self._write("best_prompts.json", as_json(best_prompts(record)))
        if record.status not in ("pending", "running"):  # drawing it takes seconds; ``gpo report`` does so at any time
            self._write("report.html", report(record, document).encode())

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._require_held()
            self.folder.write(name, content)
        except (OSError, ImportError, ValueError) as error:
            raise StorageError(f"{self.folder.path(name)} cannot be written: {error}") from None

    def _require_held(self) -> None:
        if self.leases is not None and (fence := self.leases.fence(self.folder)):
            self.folder.patiently(fence.check)

    def _read(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name)
        except ImportError as error:  # fsspec says which package it wants
            raise ConfigError(
                "--run-dir",
                f"{self.folder.url!r} cannot be read ({error})",
                "install that package (the extra 's3' brings what s3:// needs), or name another folder",
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(
                "--run-dir", f"{self.folder.url!r} cannot be read ({error})", "name a folder or fsspec URL"
            ) from None


def take_lease(leases: Leases, folder: Folder) -> None:
    """Take a folder for this process.

    A process on another machine may have died with it. Its lease is waited for until it runs out, or is renewed: a
    retry on another node, which comes at once, would else be refused.

    Raises:
        ConfigError: another process works there, or it cannot be written to.
    """
    until: float | None = None
    while True:
        try:
            leases.take(folder)
            return
        except LeaseHeld as held:
            if held.until is None or (until is not None and held.until != until):
                raise ConfigError(
                    "--run-dir", str(held), "wait for its end, then go on with --resume, or name another folder"
                ) from None
            if until is None:
                log.warning("%s; it may have died with its machine: waiting for a sign of life, or the end", held)
            until = held.until
        except (OSError, ImportError, ValueError) as error:
            raise ConfigError(
                "--run-dir", f"{folder.url!r} cannot be written ({error})", "name another folder"
            ) from None
        time.sleep(_LOOK_S)


def fingerprint(task: Task) -> str:
    """Sixteen hexadecimal digits that depend on every example of the task, demonstrations too, in order."""
    digest = blake2b(digest_size=8)
    for split, examples in (*sorted(task.examples.items()), ("shots", task.answer_format.demonstrations)):
        for example in examples:
            digest.update(json.dumps([split, example.input, *example.targets]).encode())
    return digest.hexdigest()


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


def latest_run(parent: Folder, name: str) -> Folder | None:
    """The newest run of this name below a folder, which ``--resume`` means where no folder is named.

    Raises:
        ConfigError: the folder cannot be looked into.
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


def _difference(before: Any, after: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """The first option that differs and matters, with both values."""
    if place in _FREE or (place.startswith("models.") and place.rpartition(".")[2] in _FREE_OF_MODELS):
        return None
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for option in {**before, **after}:
            below = f"{place}.{option}".removeprefix(".")
            if difference := _difference(before.get(option), after.get(option), below):
                return difference
        return None
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            if difference := _difference(old, new, f"{place}[{index}]"):
                return difference
        return None
    return None if before == after else (place, before, after)


def first_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first option in which two dumped configurations differ so that their results would, with both values."""
    return _difference(before, after)
