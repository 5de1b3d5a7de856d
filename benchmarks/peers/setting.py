"""What every peer is told, and how it reports; with the standard library alone."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CANDIDATES = 8
KEY = "none"


@dataclass(frozen=True, slots=True)
class Setting:
    """The task and the endpoint.

    Attributes:
        val, test: (text, label) each.
        prompt: to start from.
        steps: of eight candidates each.
        concurrency: calls that the endpoint serves at once.
    """

    base_url: str
    val: Sequence[tuple[str, str]]
    test: Sequence[tuple[str, str]]
    labels: Sequence[str]
    prompt: str
    steps: int
    concurrency: int


def read_setting() -> Setting:
    """From the command line; also sets the variables that many clients read."""
    parser = argparse.ArgumentParser()
    for name in ("base-url", "data", "labels", "prompt"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("steps", "concurrency"):
        parser.add_argument(f"--{name}", type=int, required=True)
    told = parser.parse_args()
    os.environ.update(OPENAI_BASE_URL=told.base_url, OPENAI_API_BASE=told.base_url, OPENAI_API_KEY=KEY)
    # Else LiteLLM asks the internet for prices when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    val, test = (_examples(Path(told.data) / f"{split}.jsonl") for split in ("val", "test"))
    return Setting(told.base_url, val, test, told.labels.split(","), told.prompt, told.steps, told.concurrency)


def _examples(path: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["label"]) for row in rows]


def report(val: float, test: float) -> None:
    """Print the final prompt's scores, in [0, 1]."""
    print(json.dumps({"val": val, "test": test}), flush=True)
