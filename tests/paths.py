"""Folders that tests read, and the documents in a run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
TRIAGE = DATA / "triage"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    # Not `splitlines`: a prompt may hold other line separators.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
