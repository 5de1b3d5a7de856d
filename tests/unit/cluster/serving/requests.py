"""Requests for runs, and a service that carries them out in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.config.loading import validate
from cluster.serving.runs import Settings
from gpo.limits.limiter import LocalLimiter
from tests.configs import merged, small_config, triage_task
from tests.paths import TRIAGE

LABELS = ("billing", "technical", "shipping", "account")


def rows(number: int, beginning: str = "ticket") -> list[dict[str, Any]]:
    """Examples as objects."""
    return [{"text": f"{beginning} {index}", "label": LABELS[index % 4]} for index in range(number)]


def posted(**changes: Any) -> dict[str, Any]:
    """A request with examples in it, merged with the changes."""
    body = {
        "run": {"name": "triage"},
        "optimizer": {"steps": 1, "candidates": 2},
        "tasks": [
            {
                "name": "triage",
                "data": {"train": rows(8, "train"), "val": rows(8, "val"), "test": rows(8, "test")},
                "fields": {"input": "text", "target": "label"},
                "prompt": "Classify the ticket.",
                "position": "question_begin",
            }
        ],
    }
    return merged(body, changes)


def posted_task(**changes: Any) -> dict[str, Any]:
    """A request whose task differs."""
    body = posted()
    body["tasks"] = [merged(body["tasks"][0], changes)]
    return body


def service_config(base_url: str, folder: Path, **changes: Any) -> RunConfig:
    """The configuration of a service with models at an endpoint."""
    own = {**small_config(base_url), "tasks": [triage_task()], "cache": {"path": str(folder / "completions.sqlite")}}
    return validate(merged(own, changes), TRIAGE)


def settings(config: RunConfig, folder: Path, **changes: Any) -> Settings:
    """How a service is started."""
    known: dict[str, Any] = {"folder": folder, "allow_dir": None, "max_runs": 4, "limiter": LocalLimiter()}
    return Settings(config, **{**known, **changes})
