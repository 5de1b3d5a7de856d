"""A run as an object: read from its folder, during the run or after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.folder import Folder
from actors.search import SearchKey
from cluster.config.secrets import refuse_credentials
from cluster.display.progress import percent
from cluster.reporting.examples import page_answers
from cluster.reporting.page import report
from cluster.results.outputs import best_prompt
from cluster.results.results_table import closing_lines, results_table
from cluster.results.run_record import RunRecord
from cluster.results.stored_run import NOT_AS_WRITTEN, RunReader, StoredRun, sections
from cluster.results.warnings import run_warnings
from gpo.checkpoint import Checkpoint
from gpo.errors import ConfigError, GPOError, StorageError
from gpo.intervals import interval
from gpo.prompt import parts_of
from gpo.score import Score, finite
from gpo.trajectory import Candidate


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """A prompt with its scores.

    Attributes:
        id: of the prompt, for ``gpo show --prompt``.
        seed: of the trajectory.
        step: the step that it was proposed in, from 1; 0 for the initial prompt.
        val, test: mean score in [0, 1]; ``None`` while there is none. The search chooses by ``val``, so the best
            prompt's is too high on average; ``test`` is the fair number.
        val_interval, test_interval: ends of the 90 % interval of the score on new examples.
        num_val, num_test: examples that the mean rests on.
        edit_distance: words by which the prompt differs from the one that it was made from.
        is_dropped: whether it lost a race before it was scored on every example of ``val``.
        name: that the task gives its prompt, if it has only one.
    """

    task: str
    seed: int
    step: int
    id: str
    prompt: str
    val: float | None
    val_interval: tuple[float, float] | None
    num_val: int
    test: float | None
    test_interval: tuple[float, float] | None
    num_test: int
    edit_distance: int
    is_dropped: bool
    name: str = "prompt"

    @property
    def prompts(self) -> dict[str, str]:
        """Name → text of a program's prompts, or of a template's messages."""
        return parts_of(self.prompt) or {self.name: self.prompt}


class Run:
    """A run, as it was when it was read.

    Attributes:
        folder: path or URL of its folder.
    """

    def __init__(self, folder: Folder, stored: StoredRun) -> None:
        self.folder = folder.path("").rstrip("/")
        self._folder, self._stored = folder, stored

    @classmethod
    def open(cls, run_dir: str | Path) -> Run:
        """Read a run from its folder, whoever works on it or did.

        Args:
            run_dir: a path, or a URL such as ``s3://BUCKET/PATH``.

        Raises:
            ConfigError: the folder holds no run, or cannot be read.
        """
        folder = folder_at(run_dir)
        try:
            return cls(folder, RunReader(folder).read())
        except ConfigError as error:
            raise ConfigError("run_dir", error.problem, error.remedy) from None

    @property
    def _record(self) -> RunRecord:
        return self._stored.record

    @property
    def id(self) -> str:
        """The run's ID."""
        return self._record.run_id

    @property
    def status(self) -> str:
        """``pending``, ``running``, ``completed``, ``interrupted``, ``budget_exhausted`` or ``failed``."""
        return self._record.status

    @property
    def errors(self) -> dict[str, str]:
        """Why trajectories ended early: ``task/seed`` → the error."""
        return {str(key): error for key, error in self._record.errors.items()}

    @property
    def warnings(self) -> list[str]:
        """What may be wrong with the settings, such as answers that are cut off."""
        return run_warnings(self._record)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(dict.fromkeys(key.task for key in self._record.keys))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Everything that ``summary.json`` says: status, time, spending, trajectories, warnings."""
        return self._stored.document()

    @property
    def best(self) -> ScoredPrompt:
        """The best prompt of the only task, by ``val``.

        Raises:
            GPOError: no prompt has a score yet, or there are several tasks: use ``best_of``.
        """
        if len(self.tasks) > 1:
            raise GPOError(f"the run has several tasks; use best_of with one of: {', '.join(self.tasks)}")
        return self.best_of(self.tasks[0] if self.tasks else "")

    def best_of(self, task: str) -> ScoredPrompt:
        """The best prompt of a task, by ``val``, over all seeds. Its interval allows for the choice of the prompt.

        Raises:
            GPOError: there is no such task, or it has no prompt with a score yet.
        """
        found = self._record.best_by_task().get(task)
        if found is None:
            why = "".join(f"; {error}" for error in list(self.errors.values())[:1])
            raise GPOError(f"no prompt of task {task!r} has a score yet; the run is {self.status}{why}")
        key, checkpoint = found
        best = checkpoint.trajectory.best
        steps = [
            number
            for number, step in enumerate(checkpoint.trajectory.steps, start=1)
            if any(one.prompt == best.prompt for one in step.candidates)
        ]
        known = best_prompt(checkpoint)["val_interval"]
        chosen = (known["low"], known["high"]) if known else None
        return self._scored(key, steps[-1] if steps else 0, best, checkpoint, chosen)

    def candidates(self, task: str | None = None) -> list[ScoredPrompt]:
        """Every prompt with a score, by task, seed and step: ``pandas.DataFrame(run.candidates())`` is a table.

        Args:
            task: only those of this task.
        """
        found = []
        for key, checkpoint in sorted(self._record.checkpoints.items()):
            if task in (None, key.task):
                found.append(self._scored(key, 0, checkpoint.trajectory.initial, checkpoint))
                for number, step in enumerate(checkpoint.trajectory.steps, start=1):
                    found += [self._scored(key, number, candidate, checkpoint) for candidate in step.candidates]
        return found

    def report(self, path: str | Path | None = None) -> str:
        """Write the report, a page without scripts of others; returns where it is.

        Args:
            path: a file. Default: ``report.html`` in the run's folder.

        Raises:
            StorageError: it cannot be written.
        """
        content = report(self._record, self.summary, page_answers(self._folder, self._record)).encode()
        try:
            if path is not None:
                Path(path).write_bytes(content)
                return str(path)
            self._folder.write("report.html", content)
        except (OSError, ImportError, ValueError) as error:
            raise StorageError(f"{path or self._folder.path('report.html')} cannot be written: {error}") from None
        return self._folder.path("report.html")

    def _scored(
        self,
        key: SearchKey,
        step: int,
        candidate: Candidate,
        checkpoint: Checkpoint,
        val_interval: tuple[float, float] | None = None,
    ) -> ScoredPrompt:
        test = checkpoint.test.get(candidate.prompt.id)
        return ScoredPrompt(
            task=key.task,
            seed=key.seed,
            step=step,
            id=candidate.prompt.id,
            prompt=candidate.prompt.text,
            val=finite(candidate.score.mean),
            val_interval=val_interval or _interval(candidate.score),
            num_val=len(candidate.score.scored),
            test=finite(test.score.mean) if test else None,
            test_interval=_interval(test.score) if test else None,
            num_test=len(test.score.scored) if test else 0,
            edit_distance=candidate.edit_distance,
            is_dropped=candidate.is_dropped,
            name=self._prompt_names.get(key.task, "prompt"),
        )

    @cached_property
    def _prompt_names(self) -> dict[str, str]:
        """Task → the name of its only prompt; without tasks that have several prompts, or one without a name."""
        try:
            known = {task["name"]: task.get("prompts") or {} for task in sections(self._record.config)["tasks"]}
            return {task: str(next(iter(prompts))) for task, prompts in known.items() if len(prompts) == 1}
        except NOT_AS_WRITTEN:
            return {}

    def __repr__(self) -> str:
        return f"Run({self.folder!r}, status={self.status!r})"

    def __str__(self) -> str:
        """The table, the sentences and the warnings that ``gpo run`` prints at its end."""
        out = StringIO()
        console = Console(file=out, width=100, color_system=None, force_jupyter=False)
        console.print(results_table(self._record))
        ended = [f"Stopped by {self._record.ended_by}."] if self._record.ended_by else []
        failed = [f"{key} failed: {error}" for key, error in self.errors.items()]
        warned = [f"Warning: {warning}." for warning in self.warnings]
        for line in (*closing_lines(self._record), *ended, *failed, *warned):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return out.getvalue().rstrip()

    def _repr_html_(self) -> str:
        """A table for notebooks. Text of models is escaped."""
        rows = []
        for task, (key, checkpoint) in self._record.best_by_task().items():
            best, initial = self.best_of(task), self._scored(key, 0, checkpoint.trajectory.initial, checkpoint)
            cells = (
                task,
                f"{percent(initial.val)} → {percent(best.val)}",
                f"{percent(initial.test)} → {percent(best.test)}",
            )
            shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            prompt = f'<td style="text-align:left;white-space:pre-wrap">{escape(best.prompt)}</td>'
            rows.append(f"<tr>{shown}{prompt}</tr>")
        head = "<tr><th>Task</th><th>val</th><th>test</th><th>Best prompt</th></tr>"
        return f"<p>{escape(self.id)}: {escape(self.status)}</p><table>{head}{''.join(rows)}</table>"


def folder_at(run_dir: str | Path) -> Folder:
    """The folder that a user named.

    Raises:
        ConfigError: no folder can be there, or the URL holds a user name or password.
    """
    refuse_credentials("run_dir", str(run_dir))
    if not str(run_dir).strip():
        raise ConfigError("run_dir", "is empty", "name a folder, or leave it out")
    try:
        return Folder.at(str(run_dir))
    except (RuntimeError, ValueError) as error:  # an unknown user's home, or a NUL
        raise ConfigError("run_dir", f"{str(run_dir)!r} is not a folder ({error})", "name another") from None


def run_id_for(folder: Folder) -> str:
    """The ID of a new run in a folder that the user named: the folder's name, which may be empty."""
    return folder.url.rstrip("/").rpartition("/")[2]


def _interval(score: Score) -> tuple[float, float] | None:
    low, high = interval(score)
    return None if low != low else (low, high)
