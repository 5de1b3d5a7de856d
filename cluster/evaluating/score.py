"""``gpo score``: scores recorded answers. Also checks that result files can be written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.folder import Folder
from gpo.data.example import Example
from gpo.data.files import cell_texts, read_json_lines
from gpo.errors import ConfigError
from gpo.evaluation.metrics.paper import PARSERS, benchmark_scorer, family_of
from gpo.intervals import LEVEL, interval
from gpo.score import Score

_TEXT_TOLERANCE = 0.02
_TOLERANCE = 1e-6


def require_writable(output: Path) -> None:
    """Check that a result file can be written, before anything is paid for.

    Raises:
        ConfigError: its folder does not exist or is not writable, or it is a folder.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        problem = "is in a folder that does not exist"
    elif output.is_dir():
        problem = "is a folder"
    elif not os.access(output if output.exists() else folder, os.W_OK):
        problem = "cannot be written (no permission)"
    else:
        return
    raise ConfigError("--output", f"{str(output)!r} {problem}", "name another")


def write_output(output: Path, content: bytes) -> None:
    """Write a result file.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        output.write_bytes(content)
    except OSError as error:
        raise ConfigError("--output", f"{str(output)!r} cannot be written ({error.strerror})", "name another") from None


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """A line of the file with its score.

    Attributes:
        row: the line.
        score: in [0, 1].
        agrees: whether the score equals the line's ``reference_score``; ``None`` if it has none.
    """

    row: Mapping[str, Any]
    score: float
    agrees: bool | None


def require_other_file(output: Path, answers: Path) -> None:
    """Check that the scored answers can be written and do not replace the recorded ones, before anything is read.

    Raises:
        ConfigError: the output is the input, is not an ordinary file, or cannot be written.
    """
    require_writable(output)
    if not output.exists():
        return
    if answers.exists() and output.samefile(answers):
        raise ConfigError("--output", f"{str(output)!r} is the file with the answers", "name another")
    if not output.is_file():
        raise ConfigError("--output", f"{str(output)!r} is not an ordinary file", "name another, or leave it out")


def scored_answers(answers: Path, parser: str) -> list[ScoredAnswer]:
    """Every answer of a JSON Lines file with its score, in order.

    The scorer sees the field ``input`` if it is a text; it may contain the options of a multiple choice.

    Raises:
        ConfigError: the parser is unknown; the file or one of its lines cannot be used.
    """
    if parser not in PARSERS:
        raise ConfigError("--parser", f"{parser!r} is unknown", f"choose one of: {', '.join(PARSERS)}")
    scored = [
        _scored(row, parser, f"FILE ({answers.name}:{line})") for line, row in read_json_lines(answers, where="FILE")
    ]
    if not scored:
        raise ConfigError("FILE", f"{str(answers)!r} holds no answer", "name the file with the recorded answers")
    return scored


def write_scored(scored: Sequence[ScoredAnswer], output: Path | None) -> None:
    """Write the lines with their ``score`` to the file, in one piece, or to standard output.

    Raises:
        ConfigError: it cannot be written.
    """
    content = b"".join(_line({**answer.row, "score": answer.score}) for answer in scored)
    try:
        if output is None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            path = output.resolve()
            Folder(str(path.parent)).write(path.name, content)
    except BrokenPipeError:
        raise  # the reader has closed the pipe; typer ends quietly
    except OSError as error:
        shown = repr(str(output)) if output else "standard output"
        raise ConfigError("--output", f"{shown} cannot be written ({error.strerror})", "name another") from None


def summary_lines(scored: Iterable[ScoredAnswer]) -> Iterator[str]:
    """A line per dataset with count, mean and agreement, in the order in which datasets first appear."""
    by_dataset: dict[str, list[ScoredAnswer]] = {}
    for answer in scored:
        by_dataset.setdefault(answer.row["dataset"], []).append(answer)
    for dataset, answers in by_dataset.items():
        score = Score(tuple(answer.score for answer in answers))
        low, high = interval(score)
        mean = f"{score.mean:.2%} ({LEVEL:.0%} interval: {low:.2%} to {high:.2%})"
        line = f"{dataset}: {len(answers)} {'answer' if len(answers) == 1 else 'answers'}, mean {mean}"
        compared = [answer.agrees for answer in answers if answer.agrees is not None]
        if compared:
            agreed = sum(compared)
            line += f", agreement with reference_score {agreed / len(compared):.2%} ({agreed} of {len(compared)})"
        yield line


def _scored(row: Mapping[str, Any], parser: str, where: str) -> ScoredAnswer:
    for field in ("dataset", "task", "target", "answer"):
        if field not in row:
            present = ", ".join(row) or "none"
            raise ConfigError(where, f"has no field {field!r}; its fields are: {present}", "add it to the line")
    dataset, task, answer = (_text(row, field, where) for field in ("dataset", "task", "answer"))
    scorer = benchmark_scorer(parser, dataset, task, where=where)
    shown = row.get("input")
    example = Example(
        input=shown if isinstance(shown, str) else "", targets=tuple(cell_texts(row["target"], "target", where))
    )
    score = scorer.score(answer, example)
    tolerance = _TEXT_TOLERANCE if family_of(dataset, task, where=where) == "text" else _TOLERANCE
    reference = _reference(row, where)
    return ScoredAnswer(row, score, None if reference is None else abs(score - reference) <= tolerance)


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row[field]
    if not isinstance(value, str):
        shown = json.dumps(value)
        shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
        raise ConfigError(where, f"field {field!r} is {shown}, not a text", "put it in quotes")
    return value


def _reference(row: Mapping[str, Any], where: str) -> float | None:
    value = row.get("reference_score")
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(where, "field 'reference_score' is not a number from 0 to 1", "correct it, or leave it out")
    return float(value)


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate cannot be encoded in UTF-8, but its JSON escape can
        return json.dumps(row).encode() + b"\n"
