"""GPO and the baselines on the simulated endpoint: ``python -m benchmarks.compare_methods [OPTIONS OF gpo compare]``.

Four tasks, three seeds, eight steps of six candidates. The simulated optimizer model follows the scores, the step size,
the reflections and the summaries that it is shown (``benchmarks/simulated/rewriting.py`` says how), so the table tells
whether each method's information arrives and is used. It does not tell how the methods compare on a language model.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.simulated.domains import DOMAINS, write_task
from benchmarks.simulated_endpoint import SimulatedEndpoint


def configuration(base_url: str, folder: Path) -> dict[str, Any]:
    """The configuration that is compared on, its tasks' files written to the folder."""
    tasks = []
    for name, domain in DOMAINS.items():
        write_task(folder / name, name, seed=0)
        tasks.append(
            {
                "name": name,
                "data": {split: f"{name}/{split}.jsonl" for split in ("train", "val", "test")},
                "fields": {"input": "text", "target": "label"},
                "prompt": domain.initial,
                "position": "question_begin",
                "answer": {"kind": "exact"},
            }
        )
    return {
        "run": {"name": "simulated", "seeds": [0, 1, 2]},
        "models": {
            "task": {"base_url": base_url, "model": "task-model", "max_concurrency": 32},
            "optimizer": {"base_url": base_url, "model": "opt-model", "max_concurrency": 16},
        },
        "tasks": tasks,
        "optimizer": {"steps": 8, "candidates": 6},
    }


def main(options: Sequence[str]) -> int:
    """Run ``gpo compare`` with these options; its exit code."""
    with tempfile.TemporaryDirectory() as place, SimulatedEndpoint() as endpoint:
        path = Path(place) / "compare.yaml"
        path.write_text(yaml.safe_dump(configuration(endpoint.base_url, Path(place))), encoding="utf-8")
        command = [sys.executable, "-m", "cluster.cli", "compare", str(path), *options]
        return subprocess.run(command, check=False).returncode  # noqa: S603  # our own command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
