"""Input and output of every peer script; uses only the standard library."""

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
        val, test: pairs of text and label.
        prompt: initial prompt.
        steps: number of steps with eight candidates each.
        concurrency: calls that the endpoint serves at once.
        optimizer: which one, if the script has several.
    """

    base_url: str
    val: Sequence[tuple[str, str]]
    test: Sequence[tuple[str, str]]
    labels: Sequence[str]
    prompt: str
    steps: int
    concurrency: int
    optimizer: str


def read_setting() -> Setting:
    """Read the command line, and set the environment variables that many clients use."""
    parser = argparse.ArgumentParser()
    for name in ("base-url", "data", "labels", "prompt"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("steps", "concurrency"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--optimizer", default="")
    options = parser.parse_args()
    os.environ.update(OPENAI_BASE_URL=options.base_url, OPENAI_API_BASE=options.base_url, OPENAI_API_KEY=KEY)
    # Otherwise LiteLLM downloads a price list when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    val, test = (_examples(Path(options.data) / f"{split}.jsonl") for split in ("val", "test"))
    labels = options.labels.split(",")
    return Setting(
        options.base_url, val, test, labels, options.prompt, options.steps, options.concurrency, options.optimizer
    )


def _examples(path: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["label"]) for row in rows]


def report(val: float, test: float) -> None:
    """Print the final prompt's scores, in [0, 1]."""
    print(json.dumps({"val": val, "test": test}), flush=True)
