"""``gpo compare``: several methods on the same tasks and seeds, over the same models and evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from actors.folder import Folder
from actors.lease import Leases
from cluster.comparing.comparison import Comparison, MethodRun
from cluster.comparing.table import save_comparison
from cluster.config import RunConfig
from cluster.display.progress import View
from cluster.runs.run import Run, run_keys
from cluster.runs.run_folder import RunFolder, take_lease
from cluster.session.session import Session
from gpo.data.task import Task
from gpo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ComparisonFolder:
    """Where a comparison is kept: a run's folder for each method, and the table beside them.

    Attributes:
        leases: takes the folder, and each method's, for this process; ``None`` where nobody else can be there.
    """

    folder: Folder
    leases: Leases | None = None

    def method(self, name: str) -> RunFolder:
        """The run's folder of a method."""
        return RunFolder(self.folder / name, self.leases)

    def stored(self) -> Mapping[str, Any] | None:
        """What ``comparison.json`` says of the comparison that is here; ``None`` where there is none.

        Raises:
            ConfigError: it is damaged, or the folder holds a single run.
        """
        try:
            content, run = self.folder.read("comparison.json"), self.folder.read("config.yaml")
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(
                "--run-dir", f"{self.folder.url!r} cannot be read ({error})", "name a folder or fsspec URL"
            ) from None
        if run is not None:
            raise ConfigError("--run-dir", f"{self.folder.url!r} holds a run, not a comparison", "name another")
        try:
            return None if content is None else _Stored.model_validate_json(content).model_dump()
        except ValidationError:
            raise ConfigError(
                "--run-dir",
                f"{self.folder.path('comparison.json')!r} is damaged",
                "remove the file; the methods' own folders hold all that matters",
            ) from None


class _StoredMethod(BaseModel):
    name: str


class _Stored(BaseModel):
    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    methods: list[_StoredMethod]


def open_comparison(
    place: ComparisonFolder, methods: Mapping[str, RunConfig], tasks: Sequence[Task], *, run_id: str, resume: bool
) -> Comparison:
    """Begin a comparison, or go on with the one that is there.

    Raises:
        ConfigError: there is one already and ``resume`` was not asked for, or it has other methods or another
            configuration; or the folder holds a run, or another process works there.
        CheckpointError: a checkpoint cannot be read.
        StorageError: the folder cannot be written to.
    """
    _require_same_methods(place, methods, resume=resume)
    if place.leases is not None:
        take_lease(place.leases, place.folder)
        _require_same_methods(place, methods, resume=resume)  # another may have begun, and be done
    if stored := place.stored():
        run_id = str(stored["run_id"])
    runs = [
        MethodRun(
            name,
            config,
            place.method(name).open(config, run_keys(config), tasks, run_id=f"{run_id}-{name}", resume=resume),
        )
        for name, config in methods.items()
    ]
    comparison = Comparison(run_id, tuple(tasks), runs)
    save_comparison(comparison, place.folder)
    return comparison


def _require_same_methods(place: ComparisonFolder, methods: Mapping[str, RunConfig], *, resume: bool) -> None:
    stored = place.stored()
    if stored is None:
        return
    if not resume:
        raise ConfigError(
            "--run-dir",
            f"{place.folder.url!r} holds a comparison already",
            "add --resume to go on with it, or name another",
        )
    known = [method["name"] for method in stored["methods"]]
    if set(known) != set(methods):
        raise ConfigError(
            "--method",
            f"the comparison in {place.folder.url!r} has {', '.join(known)}, not {', '.join(methods)}",
            "resume with the same methods, or name another --run-dir",
        )


def carry_out(comparison: Comparison, place: ComparisonFolder, standing: Session, view: View) -> None:
    """Run every method to its end, one after the other; those that are complete already cost nothing.

    Raises:
        ConfigError, GPOError, KeyboardInterrupt: as for ``Run.execute``; what is done is saved.
    """
    count = len(comparison.methods)
    for number, method in enumerate(comparison.methods, start=1):
        run = Run(method.config, comparison.tasks, method.record, place.method(method.name))
        if not run.is_complete:
            standing.start()  # before the first method's time begins
        run.execute(standing, view, title=f"{method.name} ({number} of {count})")
