"""What a person sees while a sweep works: a line on a terminal that is drawn anew, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cluster.display.progress import duration, percent
from cluster.sweep.trial import TrialNews
from gpo.limits.messages import Spent


class SweepView(Protocol):
    """Shows a sweep."""

    def __enter__(self) -> SweepView: ...

    def __exit__(self, *exception: object) -> None: ...

    def status(self, text: str) -> None:
        """Say what is being waited for."""
        ...

    def trial(self, news: TrialNews) -> None:
        """Show how far a trial of this process is."""
        ...

    def confirming(self, name: str, step: int, num_steps: int) -> None:
        """Show how far one side of the confirmation is."""
        ...

    def spent(self, spent: Spent) -> None:
        """Show what all processes have spent."""
        ...


@dataclass(slots=True)
class SweepProgress:
    """What this process has seen of its trials.

    Attributes:
        trials: that the sweep has.
        over: those that were over before.
    """

    trials: int
    over: Sequence[tuple[int, str, float | None]]
    seen: dict[int, TrialNews] = field(default_factory=dict[int, TrialNews])
    calls: int = 0

    def __post_init__(self) -> None:
        for number, outcome, val in self.over:
            kind = {"complete": "complete", "pruned": "pruned"}.get(outcome, "failed")
            self.seen[number] = TrialNews(number, val=val, outcome=kind)  # type: ignore[arg-type]

    def take(self, news: TrialNews) -> None:
        """Bring it up to date."""
        before = self.seen.get(news.number)
        if news.val is None and before is not None and news.outcome is not None:
            news = TrialNews(news.number, news.step, news.num_steps, before.val, news.outcome, news.error)
        self.seen[news.number] = news

    @property
    def running(self) -> list[TrialNews]:
        """Trials under way in this process."""
        return [news for news in self.seen.values() if news.outcome is None]

    @property
    def best(self) -> TrialNews | None:
        """The best complete trial."""
        known = [news for news in self.seen.values() if news.outcome == "complete" and news.val is not None]
        return max(known, key=lambda news: (news.val or 0.0, -news.number), default=None)

    def line(self) -> str:
        """All of it in a line."""
        counts = Counter(news.outcome for news in self.seen.values())
        parts = [f"{counts['complete']} done", f"{counts['pruned']} pruned", f"{counts[None]} running"]
        if counts["failed"]:
            parts.append(f"{counts['failed']} failed")
        best = self.best
        leader = f", best val {percent(best.val)} (trial {best.number})" if best else ""
        calls = f", {self.calls:,} calls" if self.calls else ""
        return f"{self.trials} trials: {', '.join(parts)}{leader}{calls}"


class LiveSweepView:
    """Counts, and a row for each trial under way, drawn anew a few times a second."""

    def __init__(self, console: Console, progress: SweepProgress) -> None:
        self._progress, self._started = progress, time.monotonic()
        self._spinner, self._status = Spinner("dots", ""), ""
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveSweepView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def status(self, text: str) -> None:
        self._status = text

    def trial(self, news: TrialNews) -> None:
        self._status = ""
        self._progress.take(news)
        if news.outcome is not None:
            self._live.console.print(Text(_told(self._progress.seen[news.number])))

    def confirming(self, name: str, step: int, num_steps: int) -> None:
        self._status = f"Confirming: {name}, step {step}/{num_steps}"

    def spent(self, spent: Spent) -> None:
        self._progress.calls = spent.calls

    def _render(self) -> RenderableType:
        elapsed = duration(time.monotonic() - self._started)
        waiting = f" · {self._status} …" if self._status else ""
        self._spinner.update(text=Text(f"{elapsed} · {self._progress.line()}{waiting}"))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("Trial", "Step", "val"):
            table.add_column(heading, justify="right")
        running = self._progress.running
        for news in running[: max(1, self._live.console.height - 6)]:
            table.add_row(str(news.number), f"{news.step}/{news.num_steps or '?'}", percent(news.val))
        return Group(table, self._spinner) if running else self._spinner


class PlainSweepView:
    """A line for each thing that happened, for logs and pipes."""

    def __init__(self, console: Console, progress: SweepProgress) -> None:
        self._console, self._progress, self._started = console, progress, time.monotonic()
        self._last_status = ""

    def __enter__(self) -> PlainSweepView:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def status(self, text: str) -> None:
        if text != self._last_status:
            self._last_status = text
            self._print(f"{text} …")

    def trial(self, news: TrialNews) -> None:
        self._progress.take(news)
        news = self._progress.seen[news.number]
        if news.outcome is not None:
            self._print(f"{_told(news)}; {self._progress.line()}")
        elif news.step:
            self._print(f"trial {news.number}: step {news.step}/{news.num_steps}, mean val {percent(news.val)}")

    def confirming(self, name: str, step: int, num_steps: int) -> None:
        self._print(f"confirming: {name}, step {step}/{num_steps}")

    def spent(self, spent: Spent) -> None:
        self._progress.calls = spent.calls

    def _print(self, text: str) -> None:
        elapsed = duration(time.monotonic() - self._started)
        self._console.print(f"[{elapsed}] {text}", markup=False, highlight=False, soft_wrap=True)


def _told(news: TrialNews) -> str:
    where = f" at step {news.step}/{news.num_steps}" if news.outcome == "pruned" else ""
    error = f": {news.error}" if news.error else ""
    val = f", mean val {percent(news.val)}" if news.val is not None else ""
    return f"trial {news.number}: {news.outcome}{where}{val}{error}"


def sweep_view(console: Console, progress: SweepProgress) -> LiveSweepView | PlainSweepView:
    """The view that suits where the output goes."""
    return LiveSweepView(console, progress) if console.is_terminal else PlainSweepView(console, progress)
