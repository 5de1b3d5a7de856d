"""A run as ``gpo view`` shows it: its report as it is now, and its answers when somebody looks at them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import quote

from actors.answers import recorded_prompts
from actors.folder import Folder
from actors.search import SearchKey
from cluster.reporting.curves import Curve, curves_svg
from cluster.reporting.examples import answer_rows, example_rows
from cluster.reporting.page import Progress, report, report_data
from cluster.reporting.rendering import Live
from cluster.results.answers import SearchAnswers, read_examples
from cluster.results.status import SILENT_AFTER_S, run_status
from cluster.results.stored_run import NOT_AS_WRITTEN, RunReader, StoredRun, sections

_EVERY_S = 2.0
_PACE_S = 60.0
"""Calls per second are those of so many seconds."""
_BOUNDS = {"calls": "Calls", "tokens": "Tokens", "usd": "US$", "wall_s": "Seconds"}


@dataclass
class ViewedRun:
    """Pages of one run. Threads may share it.

    Attributes:
        name: of the run's folder, or ``COMPARISON/METHOD``; part of the address of its page.
    """

    folder: Folder
    name: str
    _lock: Lock = field(default_factory=Lock)
    _page: tuple[str, str] = ("", "")
    _drawn: dict[str, tuple[list[Curve], str]] = field(default_factory=dict[str, tuple[list[Curve], str]])
    _samples: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def __post_init__(self) -> None:
        self._reader = RunReader(self.folder)

    def page(self, known: str = "") -> tuple[str, str | None]:
        """The version of the page, and the page; without the page if its version is ``known``.

        Raises:
            GPOError: the run cannot be read.
        """
        with self._lock:  # several windows wait for one page
            if self._page[0] != (version := self.version()):
                self._page = version, self._render(version)
            return version, None if version == known else self._page[1]

    def read(self) -> StoredRun:
        """The run as it is now. Raises as ``page`` does."""
        with self._lock:
            return self._reader.read()

    def data(self) -> Mapping[str, Any]:
        """What the scripts of the page draw. Raises as ``page`` does."""
        return report_data(self.read().record)

    def curves(self, task: str) -> str | None:
        """The curves of a task as SVG; ``None`` without any. Raises as ``page`` does."""
        known = self.read().record.checkpoints.items()
        if not (curves := sorted((key, checkpoint) for key, checkpoint in known if key.task == task)):
            return None
        drawn = self._drawn.get(task)
        if drawn is None or drawn[0] != curves:
            drawn = self._drawn[task] = curves, curves_svg(curves)
        return drawn[1]

    def answers(self, key: SearchKey, prompt: str) -> Mapping[str, Any] | None:
        """What the page's script asks for: the answers to a prompt; without a prompt, the examples and the prompts.

        Returns:
            ``None`` if the run has no such search.

        Raises:
            GPOError: the answers cannot be read.
        """
        with self._lock:
            if key not in self._reader.read().record.keys:
                return None
        if not prompt:
            numbers = recorded_prompts(self.folder / "trajectories", key)
            return {"examples": example_rows(read_examples(self.folder, key.task)), "recorded": numbers}
        known = SearchAnswers.read(self.folder, key, [prompt]).by_prompt.get(prompt, {})
        return {"answers": answer_rows(known.values())}

    def version(self) -> str:
        """A text that changes whenever the page does. Raises as ``page`` does."""
        version, changed_at = self._reader.version()
        # A run that is silent for long is shown as such, although nothing has changed.
        return f"{version}-{time.time() - changed_at > SILENT_AFTER_S}"

    def _render(self, version: str) -> str:
        stored = self._reader.read()
        status = run_status(stored, time.time())
        every_s = _EVERY_S if status.is_under_way else 10 * _EVERY_S
        live = Live(version, every_s, quote(self.name, safe=""))
        progress = Progress(status, self._pace(stored) if status.is_under_way else None, _budget(stored))
        document, has_answers = stored.document(), stored.has_answers
        return report(stored.record, document, live=live, has_answers=has_answers, progress=progress)

    def _pace(self, stored: StoredRun) -> float | None:
        """Calls per second in the last minute of work; before that, since the start; ``None`` before the first call."""
        try:
            now = float(stored.summary["wall_s"]), int(stored.summary["spent"]["calls"])
        except NOT_AS_WRITTEN:
            return None
        samples = self._samples
        if samples and now[0] < samples[-1][0]:
            samples.clear()
        if not samples or now[0] > samples[-1][0]:
            samples.append(now)
        while len(samples) > 2 and samples[1][0] < now[0] - _PACE_S:
            samples.popleft()
        begin = samples[0] if len(samples) > 1 else (0.0, 0)
        return (now[1] - begin[1]) / (now[0] - begin[0]) if now[0] > begin[0] else None


def _budget(stored: StoredRun) -> list[tuple[str, float, float]]:
    try:
        bounds = dict(sections(stored.record.config)["budget"])
    except NOT_AS_WRITTEN:
        return []
    spent = stored.record.spent
    amounts = {"calls": spent.calls, "tokens": spent.tokens, "usd": spent.usd, "wall_s": stored.record.wall_s}
    return [
        (_BOUNDS[name], float(amounts[name]), float(bound))
        for name, bound in bounds.items()
        if name in _BOUNDS and isinstance(bound, int | float) and bound > 0
    ]
