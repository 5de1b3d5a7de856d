"""GPO and the baselines on the simulated endpoint: ``python -m benchmarks.compare_methods FOLDER [OPTIONS]``.

Four tasks, three seeds, eight steps of six candidates; OPTIONS are those of ``gpo compare``, such as ``--resume``. The
simulated optimizer model follows the scores, step size, reflections and summaries that it sees (see
``benchmarks/simulated/rewriting.py``), so the table shows whether each method's information arrives and is used. It
does not show how the methods compare on a real language model.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.simulated.domains import DOMAINS, write_tasks
from benchmarks.simulated_endpoint import SimulatedEndpoint


def configuration(folder: Path, base_url: str) -> dict[str, Any]:
    """Write the tasks' files to the folder; return the configuration, to be stored in the same folder."""
    return {
        "run": {"name": "simulated", "seeds": [0, 1, 2]},
        "models": {
            "task": {"base_url": base_url, "check": False, "model": "task-model", "max_concurrency": 32},
            "optimizer": {"base_url": base_url, "check": False, "model": "opt-model", "max_concurrency": 16},
        },
        "tasks": write_tasks(folder, DOMAINS),
        "optimizer": {"steps": 8, "candidates": 6},
        # Without a cache, every method makes all of its calls.
        "cache": {"kind": "none"},
    }


def main(arguments: Sequence[str]) -> int:
    """Write data and configuration to the folder and run ``gpo compare`` on them; return its exit code."""
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    folder, options = Path(arguments[0]), arguments[1:]
    with SimulatedEndpoint() as endpoint:
        path = folder / "compare.yaml"
        path.write_text(yaml.safe_dump(configuration(folder, endpoint.base_url), sort_keys=False), encoding="utf-8")
        command = ["compare", str(path), "--run-dir", str(folder / "results"), *options]
        return subprocess.run([sys.executable, "-m", "cluster.cli", *command], check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
