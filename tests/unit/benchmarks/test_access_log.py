from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.measuring.access_log import CHAT, read_log, traffic
from benchmarks.simulated.service import AccessRecord


def record(
    started_s: float, *, status: int = 200, content: str = "", model: str = "task-model", path: str = CHAT
) -> AccessRecord:
    finished_s = started_s + (0.2 if status == 200 else 0.0)
    return AccessRecord(path, model, status, 1, started_s, finished_s, content or f"{started_s}", 0, 0)


# Two calls at a time, of 0.2 s each: 8 in 1 s, which could have been 10.
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


def test_figures_of_a_log_made_up() -> None:
    seen = traffic(LOG)
    assert seen is not None
    assert (seen.calls, seen.task_calls, seen.duplicates) == (8, 6, 2)
    assert (seen.requests, seen.refused, seen.failed) == (12, 3, 1)
    assert seen.duration_s == pytest.approx(1.0)
    assert seen.physical_s(0.2, 2) == pytest.approx(0.8)
    assert seen.busy(0.2, 2) == pytest.approx(0.8)
    assert seen.refused_share == pytest.approx(3 / 12)
    assert seen.refused_late_share == pytest.approx(2 / 4)


def test_the_order_of_a_log_does_not_matter() -> None:
    assert traffic(LOG[::-1]) == traffic(LOG)


def test_a_log_without_a_chat() -> None:
    assert traffic([LOG[0], LOG[-1]]) is None
    refused = traffic([record(1.0, status=429)])
    assert refused is not None
    assert (refused.busy(0.2, 2), refused.refused_share) == (0.0, 1.0)


def test_reads_what_the_endpoint_writes(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in LOG), encoding="utf-8")
    assert read_log(path) == LOG
