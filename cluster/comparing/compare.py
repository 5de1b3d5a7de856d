"""``gpo compare``: several methods on the same tasks and seeds, over the same models and evaluator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from actors.folder import Folder
from actors.lease import Leases
from cluster.comparing.comparison import Comparison, MethodRun
from cluster.comparing.table import save_comparison
from cluster.config import RunConfig
from cluster.display.progress import View
from cluster.runs.run import Run
from cluster.runs.run_folder import RunFolder, read_file, take_lease
from cluster.runs.stop_file import withdraw_stop
from cluster.session.budget import TimeLimit
from cluster.session.session import Session
from gpo.data.task import Task
from gpo.errors import BudgetExhausted, ConfigError


class _StoredMethod(BaseModel):
    name: str


class _Stored(BaseModel):
    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    methods: list[_StoredMethod]


@dataclass(frozen=True, slots=True)
class ComparisonFolder:
    """The folder of a comparison: a run's folder for each method, and the table.

    Attributes:
        leases: take the lease of this folder and of each method's; ``None`` where no other process can write there.
    """

    folder: Folder
    leases: Leases | None = None

    def method(self, name: str) -> RunFolder:
        """The run's folder of a method."""
        return RunFolder(self.folder / name, self.leases)

    def open(self, methods: Mapping[str, RunConfig], tasks: Sequence[Task], *, run_id: str, resume: bool) -> Comparison:
        """Start a comparison, or resume the existing one.

        Raises:
            ConfigError: the folder holds a comparison and ``resume`` is false, or one with other methods or another
                configuration; or the folder holds a run, or another process works there.
            CheckpointError: a checkpoint cannot be read.
            StorageError: the folder cannot be written to.
        """
        stored = self._stored(methods, resume=resume)
        if self.leases is not None:
            take_lease(self.leases, self.folder)
            stored = self._stored(methods, resume=resume)  # another process may have started and finished
        if stored is not None:
            run_id = stored.run_id
        withdraw_stop(self.folder)
        runs = [
            MethodRun(name, config, self.method(name).open(config, tasks, run_id=f"{run_id}-{name}", resume=resume))
            for name, config in methods.items()
        ]
        comparison = Comparison(run_id, tuple(tasks), runs)
        save_comparison(comparison, self.folder)
        return comparison

    def _stored(self, methods: Mapping[str, RunConfig], *, resume: bool) -> _Stored | None:
        """The comparison that is here, if it may be resumed with these methods; ``None`` where none is here."""
        content = read_file(self.folder, "comparison.json")
        if read_file(self.folder, "config.yaml") is not None:
            raise ConfigError("--run-dir", f"{self.folder.url!r} holds a run, not a comparison", "name another folder")
        if content is None:
            return None
        try:
            stored = _Stored.model_validate_json(content)
        except ValidationError:
            raise ConfigError(
                "--run-dir",
                f"{self.folder.path('comparison.json')!r} is damaged",
                "remove the file; the methods' own folders hold all that matters",
            ) from None
        if not resume:
            raise ConfigError(
                "--run-dir",
                f"{self.folder.url!r} holds a comparison already",
                "add --resume to resume it, or name another folder",
            )
        known = [method.name for method in stored.methods]
        if set(known) != set(methods):
            raise ConfigError(
                "--method",
                f"the comparison in {self.folder.url!r} has {', '.join(known)}, not {', '.join(methods)}",
                "resume with the same methods, or name another --run-dir",
            )
        return stored


def run_comparison(comparison: Comparison, folder: ComparisonFolder, session: Session, view: View) -> None:
    """Run each method to its end, one after the other; a method that is complete costs nothing.

    Raises:
        ConfigError, GPOError, KeyboardInterrupt: as for ``Run.execute``; all finished work is saved.
    """
    count = len(comparison.methods)
    _start(session, [method for method in comparison.methods if not method.record.is_complete])
    for number, method in enumerate(comparison.methods, start=1):
        run = Run(method.config, comparison.tasks, method.record, folder.method(method.name))
        run.execute(session, view, title=f"{method.name} ({number} of {count})", outer=[folder.folder])


def _start(session: Session, methods: Sequence[MethodRun]) -> None:
    """Start the session for these methods, so that starting does not count as a method's time.

    If it does not start within the time that any of them has left, it does count: no method has time left then.
    """
    if not methods:
        return
    began = time.monotonic()
    limits = [TimeLimit.of(method.config.budget, method.record) for method in methods]
    try:
        with max(limits, key=lambda limit: limit.left_s).while_waiting():
            session.start()
    except BudgetExhausted:
        for method in methods:
            method.record.began = began
