"""A run's folder: what is in it, and whether a run may be started or resumed there."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from actors.checkpoint_store import CheckpointStore
from actors.folder import Folder
from actors.search import SearchKey
from cluster.config import RunConfig
from cluster.config.loading import dump, validate
from cluster.outputs import RunRecord, as_json, as_json_lines, best_prompts, step_line, step_lines, summary
from cluster.report import report
from gpo.errors import ConfigError
from gpo.trajectory import Step

# What may differ between a run and its resumption: it changes where and how fast the work is done, not what comes out.
_FREE = ("run.dir", "cluster", "budget")
_FREE_OF_MODELS = (
    "base_url", "api_key_env", "api_key_file", "max_concurrency", "timeout_s", "max_attempts", "price", "check",
    "parallel", "threads",
)  # fmt: skip


def new_run_id(name: str) -> str:
    """The run's name, the time in UTC, and four digits against collisions."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Reads and writes a run's files."""

    folder: Folder

    @property
    def checkpoints(self) -> CheckpointStore:
        """Where the trajectories are saved."""
        return CheckpointStore(self.folder / "trajectories")

    def open(self, config: RunConfig, keys: tuple[SearchKey, ...], *, run_id: str, resume: bool) -> RunRecord:
        """Begin a run here, or go on with the one that is here.

        Args:
            config: as it is now.
            keys: the run's trajectories.
            run_id: of a new run.
            resume: whether a run may be here already.

        Raises:
            ConfigError: there is a run here and ``resume`` was not asked for, or it has another configuration; or the
                folder cannot be written to.
            CheckpointError: a checkpoint cannot be read.
        """
        stored = self._read("config.yaml")
        if stored is None:
            record = RunRecord(run_id, started_at=time.time(), keys=keys)
        elif resume:
            record = self._resumed(config, keys, run_id, yaml.safe_load(stored))
        else:
            raise ConfigError(
                "--run-dir",
                f"{self.folder.url!r} holds a run already",
                "add --resume to go on with it, or name another",
            )
        try:
            self.folder.write("config.yaml", dump(config).encode())
            self.save(record)
        except OSError as error:
            raise ConfigError(
                "--run-dir", f"{self.folder.url!r} cannot be written to ({error})", "name another"
            ) from None
        return record

    def _resumed(
        self, config: RunConfig, keys: tuple[SearchKey, ...], run_id: str, stored: dict[str, Any]
    ) -> RunRecord:
        before = validate(stored, base_dir=Path.cwd()).model_dump(mode="json")
        if difference := _difference(before, config.model_dump(mode="json")):
            field, old, new = difference
            raise ConfigError(
                field, f"the run in {self.folder.url!r} has {old!r}, not {new!r}", "resume with its own configuration"
            )
        known: dict[str, Any] = json.loads(self._read("summary.json") or b"{}")
        started = known.get("started_at")
        record = RunRecord(
            run_id=known.get("run_id") or run_id,
            started_at=datetime.fromisoformat(started).timestamp() if started else time.time(),
            wall_s=float(known.get("wall_s") or 0.0),
            keys=keys,
        )
        for key in keys:
            checkpoint = self.checkpoints.load(key)
            if checkpoint is not None:
                record.checkpoints[key] = checkpoint
        return record

    def append_step(self, key: SearchKey, step: Step) -> None:
        """Show a step in ``steps.jsonl`` at once, where the folder is local; ``save`` writes the file in order."""
        local = self.folder.local
        if local is not None:
            with (local / "steps.jsonl").open("ab") as file:
                file.write(as_json_lines([step_line(key, step)]))

    def save(self, record: RunRecord) -> None:
        """Write every file but the checkpoints.

        Raises:
            OSError: a file could not be written.
        """
        iso = {"started_at": _iso(record.started_at), "finished_at": _iso(record.finished_at)}
        document = summary(record, iso)
        self.folder.write("steps.jsonl", as_json_lines(step_lines(record)))
        self.folder.write("best_prompts.json", as_json(best_prompts(record)))
        self.folder.write("report.html", report(record, document).encode())
        self.folder.write("summary.json", as_json(document))

    def _read(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name)
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(
                "--run-dir", f"{self.folder.url!r} cannot be read ({error})", "name a folder or fsspec URL"
            ) from None


def latest_run(parent: Folder, name: str) -> Folder | None:
    """The newest run of this name below a folder, which ``--resume`` means where no folder is named."""
    of_this_name = re.compile(re.escape(name) + r"-\d{8}-\d{6}-[0-9a-f]{4}")
    runs = [entry for entry in parent.names() if of_this_name.fullmatch(entry)]
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
