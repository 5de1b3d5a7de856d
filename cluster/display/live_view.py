"""The view on a terminal: a table that is redrawn a few times a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from actors.search import Phase, Update
from cluster.display.line_views import LogView, PlainView
from cluster.display.progress import Progress, Row, View, duration, percent, percent_with_range
from cluster.display.waiting import Reminder

_LINES_AROUND = 5
"""Lines of the terminal that are not rows: heading, totals, the last line and earlier output."""
_MAX_WAIT_LINES = 3
_BAR_WIDTH = 24
_NARROW = 70
"""A terminal of fewer columns shows only the most important figures."""
_HEADINGS = ("Task", "Seed", "Step", "Now", "Initial val", "Best val", "Tried", "Calls", "Left")
_NARROW_HEADINGS = ("Task", "Seed", "Step", "Now", "Best val")
_NOW_WIDTH = max(len(word) for phase in Phase for word in phase.split())


class LiveView:
    """A table that is redrawn a few times a second."""

    def __init__(self, console: Console) -> None:
        self._started = time.monotonic()
        self._spinner = Spinner("dots", "")
        self._reminder = Reminder(lambda line: self._spinner.update(text=Text(line)))
        self._progress: Progress | None = None
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._reminder.end()
        self._live.stop()

    def status(self, text: str) -> None:
        self._reminder.end()
        self._spinner.update(text=Text(f"{text} …"))
        self._reminder.begin(text)

    def begin(self, progress: Progress) -> None:
        self._reminder.end()
        self._progress = progress

    def show(self, update: Update) -> None:
        if update.error:
            self._live.console.print(Text(f"{update.key} failed: {update.error}", style="red"))

    def tick(self) -> None:
        return  # rich redraws the table

    def _render(self) -> RenderableType:
        progress = self._progress
        if progress is None:
            return self._spinner
        rows = list(progress.rows.values())
        wait = self._wait(progress)
        shown = _most_relevant(rows, self._live.console.height - _LINES_AROUND - len(wait))
        self._spinner.update(text=Text(f"{duration(time.monotonic() - self._started)} · {totals(progress)}"))
        title = [Text(progress.title, style="bold")] if progress.title else []
        bar: list[RenderableType] = [
            ProgressBar(1.0, progress.share, width=_BAR_WIDTH),
            f"{100 * progress.share:.0f} %",
        ]
        overall = Table.grid(padding=(0, 1))
        if self._is_narrow:
            overall.add_row(*bar)
            return Group(*title, self._table(shown, rows), *wait, overall, self._spinner)
        overall.add_row(*bar, self._spinner)
        return Group(*title, self._table(shown, rows), *wait, overall)

    def _wait(self, progress: Progress) -> list[Text]:
        """The lines that say what calls wait for."""
        if progress.wait is None:
            return []
        console = self._live.console
        return list(Text(str(progress.wait), style="yellow").wrap(console, console.width))[:_MAX_WAIT_LINES]

    @property
    def _is_narrow(self) -> bool:
        return self._live.console.width < _NARROW

    def _table(self, shown: Sequence[Row], rows: Sequence[Row]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        headings: tuple[str, ...] = _HEADINGS
        if self._is_narrow:
            headings, table.padding = _NARROW_HEADINGS, (0, 1, 0, 0)
        for heading in headings:
            table.add_column(
                heading.replace(" ", "\n") if self._is_narrow else heading,
                justify="left" if heading in ("Task", "Now") else "right",
                overflow="fold",
                no_wrap=self._is_narrow and heading not in ("Task", "Now"),
                width=_NOW_WIDTH if self._is_narrow and heading == "Now" else None,
            )

        def add(cells: Sequence[str | Text], style: str = "") -> None:
            by_heading = dict(zip(_HEADINGS, cells, strict=True))
            table.add_row(*(by_heading[heading] for heading in headings), style=style)

        now = time.monotonic()
        for row in shown:
            trajectory = row.checkpoint.trajectory if row.checkpoint else None
            left = row.left_s(now) if row.phase is not Phase.DONE else None
            counted = f" {row.evaluated}/{row.to_evaluate}" if row.to_evaluate else ""
            add(
                (
                    Text(row.key.task),
                    str(row.key.seed),
                    f"{row.steps}/{row.num_steps}",
                    Text("failed", style="red") if row.error else f"{row.phase}{counted}",
                    percent(trajectory.initial.score.mean if trajectory else None),
                    percent_with_range(trajectory.best.score) if trajectory else percent(None),
                    str(len(trajectory.history)) if trajectory else "0",
                    str(row.calls),
                    duration(left) if left is not None else "",
                )
            )
        if len(rows) > 1:
            add(_total_row(rows, len(shown)), style="dim")
        return table


def totals(progress: Progress) -> str:
    """A line with time left, calls, cost and failures."""
    left, rows = progress.left_s(), progress.rows.values()
    calls = max(progress.spent.calls, sum(row.calls for row in rows))
    usd = max(progress.spent.usd, sum(row.usage.cost_usd for row in rows))
    pace = progress.calls_per_s
    failed, given_up = sum(row.error is not None for row in rows), sum(row.usage.failures for row in rows)
    parts = [
        f"about {duration(left)} left" if left is not None else "time left unknown",
        f"{calls} calls" + (f", {pace:.1f}/s" if pace is not None else ""),
        f"${usd:.2f}" if usd else "",
        f"{failed} failed" if failed else "",
        f"{given_up} calls given up" if given_up else "",
    ]
    return " · ".join(part for part in parts if part)


def _total_row(rows: Sequence[Row], num_shown: int) -> list[str]:
    """The table's last row: sums, and means of the known scores."""
    done = sum(row.phase is Phase.DONE for row in rows)
    searches = [row.checkpoint.trajectory for row in rows if row.checkpoint]
    initial = fmean(one.initial.score.mean for one in searches) if searches else None
    best = fmean(one.best.score.mean for one in searches) if searches else None
    shown = f", {num_shown} shown" if num_shown < len(rows) else ""
    return [
        "all",
        str(len(rows)),
        f"{sum(row.steps for row in rows)}/{sum(row.num_steps for row in rows)}",
        f"{done} done{shown}",
        percent(initial),
        percent(best),
        str(sum(len(one.history) for one in searches)),
        str(sum(row.calls for row in rows)),
        "",
    ]


def _most_relevant(rows: Sequence[Row], max_rows: int) -> list[Row]:
    """The rows that fit, in their order: failed ones first, then running, waiting and done ones.

    If not all rows fit, those that are done without an error are left out; the totals include them.
    """

    def rank(row: Row) -> int:
        if row.phase is Phase.DONE:
            return 0 if row.error else 3
        return 1 if row.checkpoint else 2

    if len(rows) <= max_rows:
        return list(rows)
    moving = [row for row in rows if row.phase is not Phase.DONE or row.error] or rows[-1:]
    kept = {row.key for row in sorted(moving, key=rank)[: max(1, max_rows)]}
    return [row for row in rows if row.key in kept]


def view_for(console: Console) -> View:
    """A live table on a terminal, plain lines on other consoles, and log lines for a quiet console."""
    if console.quiet:
        return LogView()
    return LiveView(console) if console.is_interactive else PlainView(console)
