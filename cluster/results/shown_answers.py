"""Recorded answers, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from actors.answers import RecordedAnswer
from actors.search import SearchKey
from cluster.display.console import FittingTable
from cluster.display.progress import percent, percent_range
from cluster.results.answers import ComparedExample, counts
from gpo.checkpoint import Checkpoint
from gpo.errors import ConfigError
from gpo.intervals import interval
from gpo.text import one_line, without_controls

_CELL = 120
"""Characters of a text in the table."""


def answers_table(
    key: SearchKey, compared: Sequence[ComparedExample], shown: Sequence[ComparedExample]
) -> FittingTable:
    """A line for each example, with the answers to both prompts. Texts are shortened."""
    numbers = ", ".join(f"{number} {outcome}" for outcome, number in counts(compared).items() if number)
    table = FittingTable(
        title=Text(f"{key}: {numbers}"), title_justify="left", title_style="bold", caption_justify="left",
        caption="fixed: the prompt scores higher than the initial one; broken: lower. One example as a whole: "
        "--example val/3",
        caption_style="dim",
    )  # fmt: skip
    for heading in ("Example", "Outcome", "Input", "Target", "Initial prompt's answer", "This prompt's answer"):
        table.add_column(heading, overflow="fold")
    for one in shown:
        cells = (
            f"{one.split}/{one.index + 1}",
            one.outcome,
            one_line(one.example.input, _CELL),
            one_line(" | ".join(one.example.targets), _CELL),
            _short(one.before),
            _short(one.after),
        )
        table.add_row(*map(Text, cells))
    return table


def _short(answer: RecordedAnswer | None) -> str:
    if answer is None:
        return "not asked"
    text = one_line(answer.answer, _CELL) if answer.answer.strip() else f"({answer.problem or 'empty'})"
    read = one_line(answer.read, _CELL)
    return f"{percent(answer.value)}: {text}" + (f" (read as {read})" if read not in ("", text) else "")


def example_lines(compared: Sequence[ComparedExample], name: str) -> Iterator[str]:
    """Everything that is recorded about one example.

    Args:
        name: split and number from 1, such as ``val/3``.

    Raises:
        ConfigError: neither prompt has answered it.
    """
    found = [one for one in compared if f"{one.split}/{one.index + 1}" == name]
    if not found:
        raise ConfigError("--example", f"no answer to {name!r} is recorded", "write it as in the table, such as val/3")
    (one,) = found
    yield f"{name}: {one.outcome}"
    yield f"\nInput:\n{without_controls(one.example.input)}"
    yield f"\nTarget: {without_controls(' | '.join(one.example.targets))}"
    for title, answer in (("Initial prompt", one.before), ("This prompt", one.after)):
        yield f"\n{title}:"
        if answer is None:
            yield "  did not answer this example."
            continue
        about = [f"score {percent(answer.value)}", f"{answer.tokens} tokens"]
        about.append("from the cache" if answer.is_cached else f"{answer.seconds:.1f} s")
        yield f"  {', '.join(about)}" + (f", {answer.flaw}" if answer.flaw else "")
        yield without_controls(answer.answer) or "(no text)"
        for number, call in enumerate(answer.calls, start=1):
            yield f"  Call {number}{f' [{call.part}]' if call.part else ''}: {call.tokens} tokens, {call.seconds:.1f} s"
            yield from (f"    {role or 'input'}: {without_controls(text)}" for role, text in call.sent)
            yield f"    reply: {without_controls(call.reply)}"
        for label, text in (("Read as", answer.read), ("Reason", answer.reason), ("Problem", answer.problem)):
            if text:
                yield f"  {label}: {without_controls(text)}"


def prompts_table(key: SearchKey, checkpoint: Checkpoint) -> FittingTable:
    """Every prompt of a search with its ID, step and ``val`` score."""
    table = FittingTable(title=Text(str(key)), title_justify="left", title_style="bold")
    for heading in ("ID", "Step", "val", "n", "Prompt"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("Step", "val", "n") else "left")
    trajectory = checkpoint.trajectory
    rows = [(0, trajectory.initial)]
    rows += [(step.index + 1, candidate) for step in trajectory.steps for candidate in step.candidates]
    for step, candidate in rows:
        score = candidate.score
        val = f"{percent(score.mean)} ({percent_range(interval(score))})"
        mark = " (best)" if candidate.prompt == trajectory.best.prompt else ""
        text = Text(one_line(candidate.prompt.text, 200) + mark)
        table.add_row(candidate.prompt.id, str(step), val, str(len(score.scored)), text)
    return table
