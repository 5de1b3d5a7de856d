"""The progress of ``gpo.optimize``: in a terminal, a notebook, or lines."""

from __future__ import annotations

import sys
from html import escape
from importlib import import_module
from typing import Any, Self

from actors.search import Update
from cluster.display.console import LineConsole
from cluster.display.live_view import totals, view_for
from cluster.display.progress import Progress, View, percent_with_range


class SilentView:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def status(self, text: str) -> None:
        return

    def begin(self, progress: Progress) -> None:
        return

    def show(self, update: Update) -> None:
        return

    def tick(self) -> None:
        return


class NotebookView(SilentView):
    """A progress bar below the cell, which is redrawn with each update."""

    def __init__(self) -> None:
        shown: Any = import_module("IPython.display")
        self._html = shown.HTML
        self._progress: Progress | None = None
        self._handle: Any = shown.display(shown.HTML("<i>Starting …</i>"), display_id=True)

    def status(self, text: str) -> None:
        self._handle.update(self._html(f"<i>{escape(text)} …</i>"))

    def begin(self, progress: Progress) -> None:
        self._progress = progress
        self.tick()

    def show(self, update: Update) -> None:
        self.tick()

    def tick(self) -> None:
        if self._progress is not None:
            self._handle.update(self._html(_bar(self._progress)))


def _bar(progress: Progress) -> str:
    """Texts of tasks and endpoints are escaped."""
    rows = [
        f"{row.key}: step {row.steps} of {row.num_steps}, "
        + (f"failed: {row.error}" if row.error else f"{row.phase}")
        + (f", best val {percent_with_range(row.checkpoint.trajectory.best.score)}" if row.checkpoint else "")
        for row in progress.rows.values()
    ]
    wait = [str(progress.wait)] if progress.wait else []
    lines = "<br>".join(escape(line) for line in (totals(progress), *wait, *rows))
    share = min(1.0, progress.share)
    return f'<progress value="{share:.3f}" max="1" style="width:20em"></progress> {100 * share:.0f} %<br>{lines}'


def progress_view(is_shown: bool) -> View:
    """The view that suits where the program runs."""
    if not is_shown:
        return SilentView()
    return NotebookView() if _is_notebook() else view_for(LineConsole(stderr=True))


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
