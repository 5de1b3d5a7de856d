from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.measuring.access_log import CHAT, UNWRITTEN_S, AnsweredCalls, Repeats, read_log, repeats, traffic
from benchmarks.simulated.service import AccessRecord


def record(
    started_s: float,
    *,
    status: int = 200,
    content: str = "",
    model: str = "task-model",
    path: str = CHAT,
    duration_s: float = 0.2,
) -> AccessRecord:
    finished_s = started_s + (duration_s if status == 200 else 0.0)
    return AccessRecord(path, model, status, 1, started_s, finished_s, content or f"{started_s}", 0, 0)


# Two concurrent calls of 0.2 s each: 8 in 1 s, out of 10 possible ones.
LOG = [
    record(9.0, path="/v1/models", model=""),
    record(10.0, content="one"),
    record(10.0, model="opt-model", content="new"),
    record(10.1, status=429, content="two"),
    record(10.2, status=500, content="one again"),
    record(10.2, content="two"),
    record(10.2, content="one"),
    record(10.4, model="opt-model", content="new"),
    record(10.4, content="one"),
    record(10.8, content="three"),
    record(10.8, status=429, content="four"),
    record(10.8, status=429, content="five"),
    record(10.8, content="six"),
    record(12.0, path="/v1/embeddings", model="embed-model"),
]


def test_statistics_of_a_log() -> None:
    seen = traffic(LOG)
    assert seen is not None
    assert (seen.calls, seen.task_calls, seen.duplicates) == (8, 6, 2)
    assert (seen.requests, seen.refused, seen.failed) == (12, 3, 1)
    assert seen.duration_s == pytest.approx(1.0)
    assert seen.physical_s(0.2, 2) == pytest.approx(0.8)
    assert seen.busy(0.2, 2) == pytest.approx(0.8)
    assert seen.refused_share == pytest.approx(3 / 12)
    assert seen.refused_late_share == pytest.approx(2 / 4)


def test_reads_the_lines_that_the_endpoint_writes(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in LOG), encoding="utf-8")
    assert read_log(path) == LOG


def test_answered_calls_are_counted_while_the_log_grows(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    answered = AnsweredCalls(path)
    assert answered() == 0
    records = [record(1.0), record(2.0, status=499), record(3.0)]
    lines = b"".join(json.dumps(asdict(record)).encode() + b"\n" for record in records)
    path.write_bytes(lines[:-5])
    assert answered() == 1
    path.write_bytes(lines)
    assert (answered(), answered()) == (2, 2)


def test_repeats_are_classified_by_the_fate_of_the_earlier_answer() -> None:
    def _call(started_s: float, content: str, status: int = 200, model: str = "task-model") -> AccessRecord:
        return record(started_s, content=content, status=status, model=model, duration_s=0.1)

    log = [
        _call(1.0, "kept"),
        _call(4.95, "under way"),
        _call(4.9 - UNWRITTEN_S / 2, "just before"),
        _call(4.0, "long before"),
        _call(5.01, "after"),
        _call(4.96, "cut", status=499),
        _call(4.95, "of the other model", model="opt-model"),
    ]
    again = [_call(7.0, record.content, model=record.model) for record in log[1:]]
    found = repeats([*again, *log], [(2.0, 2.0), (5.0, 5.0)], "task-model")
    assert found == Repeats(1, 1, 2, 1, pytest.approx(UNWRITTEN_S / 2))
    assert repeats([*again, *log], [], "opt-model") == Repeats(0, 0, 1, 0)
    assert repeats(log, [(5.0, 5.0)], "task-model") == Repeats(0, 0, 0, 1)
