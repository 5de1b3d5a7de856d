"""What an earlier sitting left in a run's JSON files, read with suspicion: anybody may have written there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from cluster.outputs import RunRecord
from gpo.limits.messages import Spent

NOT_AS_WRITTEN = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What reading a value in the way it was written raises where another one stands there."""


def json_object(content: bytes | None) -> dict[str, Any]:
    """The JSON object in a file, or an empty one where there is none."""
    try:
        document = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def take_over(record: RunRecord, known: Mapping[str, Any]) -> bool:
    """Give a record the start, duration and cost that a summary tells, as far as it does; whether it tells them all."""
    try:
        record.started_at = datetime.fromisoformat(known["started_at"]).timestamp()
        record.wall_s = _amount(known["wall_s"])
        spent = known["spent"]
        record.reported = Spent(_count(spent["calls"]), _count(spent["tokens"]), _amount(spent["usd"]))
    except NOT_AS_WRITTEN:
        return False
    return True


def _amount(value: Any) -> float:
    amount = float(value)
    if not (isfinite(amount) and amount >= 0):
        raise ValueError
    return amount


def _count(value: Any) -> int:
    return int(_amount(value))
