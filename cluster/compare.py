"""``gpo compare``: several methods on the same tasks and seeds, over the same models and evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.folder import Folder
from cluster.comparison import Comparison, MethodRun
from cluster.config import RunConfig
from cluster.progress import View
from cluster.run import Run, run_keys
from cluster.run_folder import RunFolder
from cluster.standing import Standing
from gpo.tasks import Task


@dataclass(frozen=True, slots=True)
class ComparisonFolder:
    """Where a comparison is kept: a run's folder for each method, and the table beside them."""

    folder: Folder

    def method(self, name: str) -> RunFolder:
        """The run's folder of a method."""
        return RunFolder(self.folder / name)


def open_comparison(
    place: ComparisonFolder, methods: Mapping[str, RunConfig], tasks: Sequence[Task], *, run_id: str, resume: bool
) -> Comparison:
    """Begin a comparison, or go on with the one that is there.

    Raises:
        ConfigError: there is one already and ``resume`` was not asked for, or it has another configuration.
        CheckpointError: a checkpoint cannot be read.
    """
    runs = [
        MethodRun(
            name,
            config,
            place.method(name).open(config, run_keys(config), tasks, run_id=f"{run_id}-{name}", resume=resume),
        )
        for name, config in methods.items()
    ]
    # A comparison that is resumed keeps its name.
    first = runs[0]
    return Comparison(first.record.run_id.removesuffix(f"-{first.name}"), tuple(tasks), runs)


def carry_out(comparison: Comparison, place: ComparisonFolder, standing: Standing, view: View) -> None:
    """Run every method to its end, one after the other; those that are complete already cost nothing.

    Raises:
        ConfigError, GPOError, KeyboardInterrupt: as for ``Run.execute``; what is done is saved.
    """
    count = len(comparison.methods)
    for number, method in enumerate(comparison.methods, start=1):
        run = Run(method.config, comparison.tasks, method.record, place.method(method.name))
        run.execute(standing, view, title=f"{method.name} ({number} of {count})")
