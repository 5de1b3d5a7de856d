"""The display of a running sweep: live on a terminal, plain lines on other consoles."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cluster.display.progress import duration, percent
from cluster.display.waiting import SILENCE_S, Reminder
from cluster.sweep.trial import TrialUpdate
from gpo.limits.messages import Spent, Wait


@dataclass(slots=True)
class SweepProgress:
    """The trials that this process knows of.

    Attributes:
        trials: number of trials in the sweep.
        over: number, state and ``val`` of the trials that were over before.
        calls: of all processes.
        wait: the longest wait for an endpoint, in this process; ``None`` if none is long.
    """

    trials: int
    over: Sequence[tuple[int, str, float | None]]
    seen: dict[int, TrialUpdate] = field(default_factory=dict[int, TrialUpdate])
    calls: int = 0
    wait: Wait | None = None

    def __post_init__(self) -> None:
        for number, outcome, val in self.over:
            kind = {"complete": "complete", "pruned": "pruned"}.get(outcome, "failed")
            self.seen[number] = TrialUpdate(number, val=val, outcome=kind)  # type: ignore[arg-type]

    def receive(self, update: TrialUpdate) -> None:
        """Record an update."""
        before = self.seen.get(update.number)
        if update.val is None and before is not None and update.outcome is not None:
            update = TrialUpdate(update.number, update.step, update.num_steps, before.val, update.outcome, update.error)
        self.seen[update.number] = update

    @property
    def running(self) -> list[TrialUpdate]:
        """Trials that run in this process."""
        return [update for update in self.seen.values() if update.outcome is None]

    @property
    def best(self) -> TrialUpdate | None:
        """The best complete trial."""
        known = [update for update in self.seen.values() if update.outcome == "complete" and update.val is not None]
        return max(known, key=lambda update: (update.val or 0.0, -update.number), default=None)

    def line(self) -> str:
        """A summary in one line."""
        counts = Counter(update.outcome for update in self.seen.values())
        parts = [f"{counts['complete']} done", f"{counts['pruned']} pruned", f"{counts[None]} running"]
        if counts["failed"]:
            parts.append(f"{counts['failed']} failed")
        best = self.best
        leader = f", best val {percent(best.val)} (trial {best.number})" if best else ""
        calls = f", {self.calls:,} calls" if self.calls else ""
        wait = f"; {self.wait}" if self.wait else ""
        return f"{self.trials} trials: {', '.join(parts)}{leader}{calls}{wait}"


class SweepView:
    """Shows a sweep as plain lines, one for each event."""

    def __init__(self, console: Console, progress: SweepProgress) -> None:
        self._console, self._progress, self._status = console, progress, ""
        self._started = self._last = time.monotonic()
        self._reminder = Reminder(self._print)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._reminder.end()

    def status(self, text: str) -> None:
        """Show what the program is waiting for."""
        if text != self._status:
            self._status = text
            self._reminder.end()
            self._print(f"{text} …")
            self._reminder.begin(text)

    def trial(self, update: TrialUpdate) -> None:
        """Show the progress of a trial of this process."""
        self._progress.receive(update)
        update = self._progress.seen[update.number]
        if update.outcome is not None:
            self._print(f"{_line(update)}; {self._progress.line()}")
        elif update.step:
            self._print(f"trial {update.number}: step {update.step}/{update.num_steps}, mean val {percent(update.val)}")

    def confirming(self, name: str, step: int, num_steps: int) -> None:
        """Show the progress of one setting in the confirmation."""
        self._print(f"confirming: {name}, step {step}/{num_steps}")

    def spent(self, spent: Spent) -> None:
        """Show the spending of all processes."""
        self._progress.calls = spent.calls

    def tick(self, wait: Wait | None) -> None:
        """Show a sign of life, and what calls wait for; called about once a second."""
        self._reminder.end()
        self._progress.wait = wait
        if time.monotonic() - self._last >= SILENCE_S:
            self._print(self._progress.line())

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        self._console.print(f"[{self._elapsed}] {text}", markup=False, highlight=False, soft_wrap=True)

    @property
    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._started)


class LiveSweepView(SweepView):
    """Shows counts, and a row for each running trial, redrawn a few times a second."""

    def __init__(self, console: Console, progress: SweepProgress) -> None:
        super().__init__(console, progress)
        self._spinner = Spinner("dots", "")
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def status(self, text: str) -> None:
        self._status = text

    def trial(self, update: TrialUpdate) -> None:
        self._status = ""
        self._progress.receive(update)
        if update.outcome is not None:
            self._console.print(Text(_line(self._progress.seen[update.number])))

    def confirming(self, name: str, step: int, num_steps: int) -> None:
        self._status = f"Confirming: {name}, step {step}/{num_steps}"

    def tick(self, wait: Wait | None) -> None:
        self._progress.wait = wait

    def _render(self) -> RenderableType:
        waiting = f" · {self._status} …" if self._status else ""
        self._spinner.update(text=Text(f"{self._elapsed} · {self._progress.line()}{waiting}"))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("Trial", "Step", "val"):
            table.add_column(heading, justify="right")
        running = self._progress.running
        for update in running[: max(1, self._console.height - 6)]:
            table.add_row(str(update.number), f"{update.step}/{update.num_steps or '?'}", percent(update.val))
        return Group(table, self._spinner) if running else self._spinner


def _line(update: TrialUpdate) -> str:
    where = f" at step {update.step}/{update.num_steps}" if update.outcome == "pruned" else ""
    error = f": {update.error}" if update.error else ""
    val = f", mean val {percent(update.val)}" if update.val is not None else ""
    return f"trial {update.number}: {update.outcome}{where}{val}{error}"


def sweep_view(console: Console, progress: SweepProgress) -> SweepView:
    """The view for this console."""
    return LiveSweepView(console, progress) if console.is_interactive else SweepView(console, progress)
