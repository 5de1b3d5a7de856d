"""Runs the searches of one method in this process: ``python -m benchmarks.power.worker MODULE [PACKAGES]``.

Reads jobs from standard input and prints a result for each, as JSON lines. Also runs in the Python environment of the
other optimizers. PACKAGES is a folder of packages that is searched last.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from benchmarks.power.results import Job, Result
from benchmarks.power.structures import STRUCTURES, StructuredTask


def main(module: str, *packages: str) -> None:
    """Run the jobs with a module's ``search``."""
    sys.path.extend(packages)
    search = import_module(module).search
    # Some optimizers print.
    output, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        job = Job(**json.loads(line))
        structure = STRUCTURES[job.structure]
        found = search(job.method, structure, job.budget, job.seed)
        if found.calls > job.budget:
            raise RuntimeError(f"{job} made {found.calls} calls")
        result = Result(job, StructuredTask(structure, job.seed).true_score(found.prompt), found.calls)
        print(result.to_json(), file=output, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
