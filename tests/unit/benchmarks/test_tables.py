from __future__ import annotations

from pathlib import Path

from benchmarks.measuring.measurement import Measurement
from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.tables import CALLS, NAME, SPEED, table, write_between
from benchmarks.scaling import TABLES

DONE = Measurement(
    name="ours", trajectories=1, limit=32, latency_s=0.2, wall_s=71.25, to_first_call_s=9.0, calling_s=60.0,
    physical_s=57.0, calls=9120, duplicates=3, busy=0.95,
)  # fmt: skip
FAILED = Measurement(name="peer", trajectories=1, limit=32, latency_s=0.2, wall_s=0.5, failure="exit code 1: no module")


def test_one_row_per_measurement_and_the_failures_below() -> None:
    lines = table([DONE, FAILED], NAME, SPEED, CALLS).splitlines()
    assert lines[0].startswith("|  | Wall time |")
    assert lines[2] == "| ours | 71.2 s | 9.0 s | 60.0 s | 57.0 s | 95.0 % | 9,120 | 3 |"
    assert lines[3] == "| peer | 0.5 s | – | – | – | – | 0 | 0 |"
    assert lines[-1] == "peer failed: exit code 1: no module"
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n<!-- other -->\n<!-- /other -->\n", encoding="utf-8")
    for text in ("| new |", "| newer |"):
        write_between(path, "bench", text)
        assert path.read_text("utf-8") == (
            f"a\n<!-- bench -->\n{text}\n<!-- /bench -->\nb\n<!-- other -->\n<!-- /other -->\n"
        )


def test_every_table_has_markers_in_the_readme() -> None:
    document = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    for name in ("saturation", "faults", *TABLES):
        assert document.count(f"<!-- {name} -->") == document.count(f"<!-- /{name} -->") == 1
