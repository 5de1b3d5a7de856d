"""GPO and the baselines on the simulated endpoint: ``python -m benchmarks.compare_methods FOLDER [OPTIONS]``.

Four tasks, three seeds, eight steps of six candidates; the options are those of ``gpo compare``, such as ``--resume``.
The simulated optimizer model follows the scores, the step size, the reflections and the summaries that it is shown
(``benchmarks/simulated/rewriting.py`` says how), so the table tells whether each method's information arrives and is
used. It does not tell how the methods compare on a language model.
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
    """Write the tasks' files to the folder; the configuration that is compared on, which belongs beside them."""
    return {
        "run": {"name": "simulated", "seeds": [0, 1, 2]},
        "models": {
            "task": {"base_url": base_url, "model": "task-model", "max_concurrency": 32},
            "optimizer": {"base_url": base_url, "model": "opt-model", "max_concurrency": 16},
        },
        "tasks": write_tasks(folder, DOMAINS),
        "optimizer": {"steps": 8, "candidates": 6},
        # Each method pays for all its calls, whichever comes first.
        "cache": {"kind": "none"},
    }


def main(arguments: Sequence[str]) -> int:
    """Write data and configuration to the folder, and run ``gpo compare`` on them; its exit code."""
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    folder, *options = arguments
    place = Path(folder)
    with SimulatedEndpoint() as endpoint:
        path = place / "compare.yaml"
        path.write_text(yaml.safe_dump(configuration(place, endpoint.base_url), sort_keys=False), encoding="utf-8")
        command = ["compare", str(path), "--run-dir", str(place / "results"), *options]
        return subprocess.run([sys.executable, "-m", "cluster.cli", *command], check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
