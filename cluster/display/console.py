"""Output that stays readable on narrow terminals, on those without cursor movement, and in files."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from cluster.display.waiting import Reminder

_TEXT_WIDTH = 16
"""Narrowest column of texts that is still readable."""
_INDENT = 2


class LineConsole(Console):
    """A console whose ``status`` prints lines where it cannot show a spinner: in pipes and with ``TERM=dumb``."""

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Show what the program waits for, as a spinner, or as a line every 5 s; a shorter wait prints none."""
        return super().status(status, **options) if self.is_interactive else _Lines(status, console=self)


class _Lines(Status):
    """Prints what the program waits for, if that takes longer than a moment."""

    def start(self) -> None:
        self._reminder = Reminder(lambda line: self.console.print(line, markup=False, highlight=False, soft_wrap=True))
        self._reminder.begin(str(self.status).removesuffix(" …"))

    def stop(self) -> None:
        self._reminder.end()


class FittingTable(Table):
    """A table that becomes a list where its columns do not fit: a heading per row, and its cells below."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table or the list, by the width of the console."""
        _, right, _, left = self.padding
        padded = len(self.columns) - (not self.pad_edge)
        gaps = padded * (left + right) + (len(self.columns) + 1 if self.box else 0)
        if gaps + sum(map(_narrowest, self.columns)) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text.assemble(self.title, style="bold")
        headings = [_text(column.header) for column in self.columns]
        for cells in zip(*(map(_in_list, column.cells, repeat(column)) for column in self.columns), strict=True):
            first = Text.assemble(
                headings[0] if self.columns[0].justify == "right" else "", " ", cells[0], style="bold"
            )
            if cells[0].plain.strip():
                yield Text.assemble(first.plain.strip(), style=cells[0].style or "bold")
            pairs = [
                Text.assemble((heading.plain.replace("\n", " "), "dim"), " " if heading.plain else "", cell)
                for heading, cell in zip(headings[1:], cells[1:], strict=True)
                if cell.plain.strip()
            ]
            for line in _packed(pairs, options.max_width - _INDENT):
                yield Padding(line, (0, 0, 0, _INDENT), expand=False)
        if self.caption:
            yield Text.assemble(self.caption)


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))


def _in_list(cell: RenderableType, column: Column) -> Text:
    """The cell for a list: the further lines of a number follow the first in brackets."""
    text = _text(cell)
    first, *others = text.split() if column.no_wrap else [text]
    return Text.assemble(first, " (", Text(", ").join(others), ")") if others else first


def _narrowest(column: Column) -> int:
    """The width that a column needs: of a line, a word, or a readable part of a text."""
    texts = [_text(cell) for cell in (column.header, *column.cells)]
    if column.no_wrap:
        return max(line.cell_len for text in texts for line in text.split())
    if column.overflow == "fold":
        return max(column.min_width or 0, min(_TEXT_WIDTH, max(text.cell_len for text in texts)))
    return max((Text(word).cell_len for text in texts for word in text.plain.split()), default=0)


def _packed(parts: Iterable[Text], width: int) -> list[Text]:
    """As many parts on each line as fit; a longer part has its own line, which wraps."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], " · ", part)
        else:
            part.overflow = "fold"
            lines.append(part)
    return lines
