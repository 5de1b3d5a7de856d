"""The order in which every run begins: what is read, checked, locked and paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from actors.lease import Leases
from cluster.config import RunConfig
from cluster.display.progress import View
from cluster.results.run_record import RunRecord
from cluster.runs.run import Run
from cluster.runs.run_folder import RunFolder
from cluster.session.budget import TimeLimit
from cluster.session.models import RefusedParameters, build_tasks
from gpo.events import OnEvent


class Opening:
    """A run on its way to its first call. Making it reads the data; ``opened`` then takes the folder.

    The models of a new run are checked before that, so that a mistake leaves no folder. Those of a run that continues
    are checked after that, and only if it is incomplete: otherwise no model is called.

    Args:
        folder: of the run, without leases.
        say: receives what the prompts of an earlier run scored there.
        resume: whether a run in the folder is continued.

    Attributes:
        config: with the prompts that a run in the folder took from an earlier run.
        tasks: loaded and checked.

    Raises:
        ConfigError: the folder cannot be read, or the data cannot be used.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, say: Callable[[str], object], *, resume: bool = True
    ) -> None:
        self._resume = resume
        self.is_new = not (resume and folder.holds_run)
        self.config = config if self.is_new else folder.with_known_prompts(config)
        self.tasks = build_tasks(self.config, say)
        self._leases = Leases()
        self._folder = replace(folder, leases=self._leases)

    @contextmanager
    def opened(self, run_id: str, began: float | None = None) -> Iterator[OpenRun]:
        """Start the run or continue it, and hold the lease of its folder in this context.

        Args:
            run_id: of a new run.
            began: see ``RunRecord``.

        Raises:
            ConfigError, StorageError: as for ``RunFolder.open``.
        """
        with self._leases:
            record = self._folder.open(self.config, self.tasks, run_id=run_id, resume=self._resume, began=began)
            yield OpenRun(self, self._folder, record)


class OpenRun:
    """A run whose folder belongs to this process."""

    def __init__(self, opening: Opening, folder: RunFolder, record: RunRecord) -> None:
        self._opening, self._folder, self.record = opening, folder, record

    @property
    def needs_check(self) -> bool:
        """Whether its models are still to be checked."""
        has_work = not self.record.is_complete and not TimeLimit.of(self._opening.config.budget, self.record).is_over
        return has_work and not self._opening.is_new

    def loop(self, on_event: OnEvent | None = None) -> Run:
        """The loop that runs it."""
        return Run(self._opening.config, self._opening.tasks, self.record, self._folder, on_event=on_event)

    def execute_on_ray(
        self, address: str, view: View, refused: RefusedParameters, on_event: OnEvent | None = None
    ) -> None:
        """Run it to its end in a session; see ``Run.execute``.

        Args:
            address: of the cluster, as for ``Session``.
            refused: parameters that are known to be refused.
        """
        from cluster.session.session import Session  # imports Ray, whose environment must be prepared by now

        name, opening = f"gpo-{self.record.run_id}", self._opening
        with Session(opening.config, opening.tasks, name=name, address=address, view=view, refused=refused) as session:
            self.loop(on_event).execute(session, view)
