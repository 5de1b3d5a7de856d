"""A run read from its folder by another process: while it works, after it ended, or after a crash."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from math import isfinite
from pathlib import PurePosixPath
from typing import Any, get_args

import fsspec
import yaml

from actors.checkpoints import CheckpointStore
from actors.folder import Folder
from actors.search import SearchKey
from cluster.config.files import read_yaml
from cluster.config.run import StopConfig
from cluster.results.outputs import best_prompt, scored_prompt, summary
from cluster.results.run_record import RunRecord, Status
from gpo.checkpoint import Checkpoint
from gpo.errors import CheckpointError, ConfigError
from gpo.limits.messages import Spent
from gpo.strategies.stopping import StoppingRule
from gpo.text import without_controls

_MOST_STEPS = 1_000_000_000
_CHECKPOINT = re.compile(r"trajectories/(?P<task>.+)/seed-(?P<seed>\d+)\.msgpack")
_ANSWERS = re.compile(r"trajectories/.+/seed-\d+\.answers/[^/]+\.jsonl\.gz")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file's last change, in seconds since 1970, and its size in bytes."""

    changed_at: float
    size: int


@dataclass
class StoredRun:
    """The content of a run's folder.

    Attributes:
        record: from the checkpoints; status and times from ``summary.json``.
        summary: the content of ``summary.json``; may be empty.
        changed_at: seconds since 1970 of the last change of a file.
        has_answers: whether answers of the task model are recorded.
    """

    record: RunRecord
    summary: Mapping[str, Any]
    changed_at: float
    has_answers: bool = False

    def document(self) -> dict[str, Any]:
        """``summary.json``, updated from the checkpoints, except for its averages."""
        times = {name: self.summary.get(name) for name in ("started_at", "finished_at")}
        averages = self.summary.get("averages")
        document = summary(self.record, times, self._best)
        return {**document, "averages": averages if isinstance(averages, list) else []}

    def _best(self, key: SearchKey, checkpoint: Checkpoint) -> dict[str, Any]:
        """The best prompt as ``summary.json`` describes it, if that is about this checkpoint; else computed again.

        That takes seconds for a trajectory with a thousand prompts.
        """
        known = scored_prompt(checkpoint.trajectory.best, checkpoint)
        try:
            row = self._rows[key.task, key.seed]
            best = row["best"]
            if row["steps"] == len(checkpoint.trajectory.steps) and all(
                best[name] == known[name] for name in ("prompt", "val", "val_scored", "test", "test_scored")
            ):
                ends, expected = best["val_interval"], best["val_expected"]
                known["val_interval"] = ends and {name: float(ends[name]) for name in ("level", "low", "high")}
                return {**known, "val_expected": expected if expected is None else float(expected)}
        except NOT_AS_WRITTEN:
            pass
        return best_prompt(checkpoint)

    @cached_property
    def _rows(self) -> dict[tuple[str, int], Any]:
        rows = self.summary.get("trajectories")
        known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return {(str(row.get("task")), row.get("seed", -1)): row for row in known}


@dataclass
class RunReader:
    """Reads a run's folder, and never changes it. Reading again reads only what has changed since.

    Attributes:
        folder: local, or at any fsspec URL.
    """

    folder: Folder
    _known: dict[SearchKey, tuple[Stamp, Checkpoint | str]] = field(default_factory=dict)

    def read(self) -> StoredRun:
        """Read the run. Where a checkpoint cannot be read, the reason becomes its trajectory's error.

        Raises:
            ConfigError: the folder holds no run, or cannot be read.
        """
        try:
            stamps = self._stamps()
            texts = {name: self.folder.read(name) or b"" for name in ("summary.json", "config.yaml")}
        except (OSError, ImportError, ValueError) as error:
            raise ConfigError(
                "RUN_DIR", f"{self.folder.url!r} cannot be read ({error})", "name a run's folder"
            ) from None
        found = {key: stamp for name, stamp in stamps.items() if (key := _key(name))}
        if not found and not any(texts.values()):
            raise ConfigError("RUN_DIR", f"{self.folder.url!r} holds no run", "name the folder of a run")
        known = json_object(texts["summary.json"])
        record = _record(known, self.folder)
        record.config = texts["config.yaml"].decode(errors="replace")
        record.keys = tuple(dict.fromkeys((*record.keys, *sorted(found))))
        config = sections(record.config)
        if (num_steps := _num_steps(config)) is not None:
            first = _with_first_prompts(config)
            record.num_steps = {key: num_steps + (key.task in first) for key in record.keys}
        record.stopping = _stopping(config)
        for key, stamp in found.items():
            checkpoint = self._checkpoint(key, stamp)
            if isinstance(checkpoint, str):
                record.errors[key] = checkpoint
            else:
                record.checkpoints[key] = checkpoint
        changed_at = max((stamp.changed_at for stamp in stamps.values()), default=record.started_at)
        return StoredRun(record, known, changed_at, any(_ANSWERS.fullmatch(name) for name in stamps))

    def version(self) -> tuple[str, float]:
        """A text that changes with any file but those of leases, and seconds since 1970 of the last change.

        Raises:
            ConfigError: the folder cannot be read.
        """
        try:
            stamps = {name: stamp for name, stamp in self._stamps().items() if not name.startswith(".")}
        except (OSError, ImportError, ValueError) as error:
            problem = f"{self.folder.url!r} cannot be read ({error})"
            raise ConfigError("RUN_DIR", problem, "name a run's folder") from None
        digest = blake2b(repr(sorted(stamps.items())).encode(), digest_size=8).hexdigest()
        return digest, max((stamp.changed_at for stamp in stamps.values()), default=0.0)

    def _checkpoint(self, key: SearchKey, stamp: Stamp) -> Checkpoint | str:
        known = self._known.get(key)
        if known is None or known[0] != stamp:
            try:
                content: Checkpoint | str = self._store.load(key) or "the checkpoint was removed"
            except CheckpointError as error:
                content = _shown(f"CheckpointError: {error}")
            known = self._known[key] = (stamp, content)
        return known[1]

    @cached_property
    def _store(self) -> CheckpointStore:
        return CheckpointStore(self.folder / "trajectories")

    def _stamps(self) -> dict[str, Stamp]:
        """Path in the folder → stamp, of every file."""
        files, root = fsspec.core.url_to_fs(self.folder.url)
        files.invalidate_cache()  # object stores' clients cache listings
        found = files.find(root, detail=True)
        return {
            PurePosixPath(path).relative_to(root).as_posix(): Stamp(_changed_at(about), int(about.get("size") or 0))
            for path, about in found.items()
            if not PurePosixPath(path).name.endswith(".partial")
        }


def _changed_at(about: Mapping[str, Any]) -> float:
    # Each file system has its own name for it.
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = about.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def _key(name: str) -> SearchKey | None:
    found = _CHECKPOINT.fullmatch(name)
    return SearchKey(found["task"], int(found["seed"])) if found else None


def _record(known: Mapping[str, Any], folder: Folder) -> RunRecord:
    """The record in ``summary.json``; where the file is damaged, as much as can be known without it."""
    name = known.get("run_id") or PurePosixPath(folder.url).name
    record = RunRecord(_shown(name), started_at=0.0)
    if known.get("status") in get_args(Status):
        record.status = known["status"]
    record.ended_by = _shown(known.get("ended_by") or "")
    record.is_tested = known.get("is_tested") is not False
    restore_totals(record, known)
    try:
        rows = [(SearchKey(str(row["task"]), int(row["seed"])), row.get("error")) for row in known["trajectories"]]
    except NOT_AS_WRITTEN:
        rows = []
    record.keys = tuple(key for key, _ in rows)
    record.errors = {key: _shown(error) for key, error in rows if error}
    return record


def sections(config: str) -> Mapping[str, Any]:
    """The sections of a configuration; none where it is damaged."""
    try:
        return dict(read_yaml(config))
    except (yaml.YAMLError, *NOT_AS_WRITTEN):
        return {}


def _with_first_prompts(config: Mapping[str, Any]) -> set[str]:
    """The tasks whose trajectories begin with a step of first prompts."""
    try:
        return {str(task["name"]) for task in config["tasks"] if _gives_first_prompts(task["prompt"])}
    except NOT_AS_WRITTEN:
        return set()


def _gives_first_prompts(prompt: Any) -> bool:
    texts = prompt.get("prompts") if isinstance(prompt, dict) else prompt
    # Without a prompt, the optimizer model writes some from the goal.
    return prompt is None or (isinstance(texts, list) and len(texts) > 1)


def _num_steps(config: Mapping[str, Any]) -> int | None:
    """Steps that change the current prompt, in each trajectory; ``None`` where that depends on the data."""
    try:
        steps = config["optimizer"]["steps"]
    except NOT_AS_WRITTEN:
        return None
    return steps if isinstance(steps, int) and 0 < steps <= _MOST_STEPS else None


def _stopping(config: Mapping[str, Any]) -> StoppingRule:
    try:
        return StopConfig.model_validate(config["stop"]).build()
    except NOT_AS_WRITTEN:  # pydantic's error is a ValueError
        return StoppingRule()


def _shown(value: Any) -> str:
    """As text without control characters, which could move a terminal's cursor."""
    return without_controls(str(value))


NOT_AS_WRITTEN = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""Exceptions when a value in a file is not of the kind that was written."""


def json_object(content: bytes | None) -> dict[str, Any]:
    """The JSON object in a file; an empty one where the file holds none."""
    try:
        document = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def restore_totals(record: RunRecord, known: Mapping[str, Any]) -> bool:
    """Copy start, duration and cost from a summary to a record; returns whether the summary has them all."""
    try:
        record.started_at = datetime.fromisoformat(known["started_at"]).timestamp()
        record.wall_s = _amount(known["wall_s"])
        spent = known["spent"]
        record.reported = Spent(_count(spent["calls"]), _count(spent["tokens"]), _amount(spent["usd"]))
    except NOT_AS_WRITTEN:
        return False
    return True


def finished_at(known: Mapping[str, Any]) -> float | None:
    """When the run of a summary ended, in seconds since 1970; ``None`` if the summary does not say it."""
    try:
        return datetime.fromisoformat(known["finished_at"]).timestamp()
    except NOT_AS_WRITTEN:
        return None


def _amount(value: Any) -> float:
    amount = float(value)
    if not (isfinite(amount) and amount >= 0):
        raise ValueError
    return amount


def _count(value: Any) -> int:
    return int(_amount(value))
