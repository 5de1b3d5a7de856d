"""The true score of the prompt that a search finds, against task model calls: ``python -m benchmarks.power [OPTIONS]``.

For each budget of task model calls, each method searches on simulated tasks with different structure
(``benchmarks.power.structures``), with several seeds. Prints a Markdown table of means and standard errors.
With ``--peers-python``, other optimizers take part. ``benchmarks/README.md`` explains what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from time import monotonic

from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.tables import write_between
from benchmarks.power.results import Job, Result, draw, read_results, table
from benchmarks.power.structures import STRUCTURES

BUDGETS = (500, 1_000, 1_500, 2_500, 5_000)
BRIDGES = "benchmarks.power.peers.bridges"
"""Our search for a program of another optimizer's package, which is needed as well as our own packages."""
OURS, PEER_MODULES = (
    "benchmarks.power.searches",
    {
        "dspy_gepa": "benchmarks.power.peers.dspy_search",
        "dspy_mipro": "benchmarks.power.peers.dspy_search",
        "gepa": "benchmarks.power.peers.gepa_search",
        "capo": "benchmarks.power.peers.promptolution_search",
        "evoprompt": "benchmarks.power.peers.promptolution_search",
        "dspy_bridge": BRIDGES,
        "gepa_bridge": BRIDGES,
    },
)
NAMES = {
    "efficient": "`efficient`",
    "racing": "racing",
    "paper": "`paper`",
    "dspy_gepa": "DSPy GEPA",
    "dspy_mipro": "DSPy MIPROv2",
    "gepa": "gepa",
    "capo": "promptolution CAPO",
    "evoprompt": "promptolution EvoPrompt",
    "dspy_bridge": "`efficient`, the DSPy program",
    "gepa_bridge": "`efficient`, the gepa adapter",
}
_PROGRESS_S = 3.0
# With several threads each, the processes would wait for each other.
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, print the table, and write it if asked; return 0 if all searches completed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__)
    add = parser.add_argument
    add("--budgets", type=int, nargs="+", default=BUDGETS, metavar="CALLS", help="task model calls of a search")
    add("--seeds", type=int, default=10, help="searches for each method, structure and budget")
    add("--structures", nargs="+", choices=STRUCTURES, default=list(STRUCTURES), metavar="NAME")
    add("--methods", nargs="+", choices=NAMES, metavar="NAME", help=f"from {', '.join(NAMES)}")
    add("--processes", type=int, default=2, help="searches at the same time")
    add("--results", type=Path, metavar="FILE", help="keep the results here; those that it has are not repeated")
    add("--write", action="store_true", help="write table and figure into benchmarks/README.md and docs/images")
    add("--peers-python", type=Path, metavar="PATH", help="Python that has the peers (see `make bench-peers`)")
    settings = parser.parse_args(arguments)
    methods = settings.methods or [
        name for name in NAMES if name not in PEER_MODULES or (settings.peers_python and PEER_MODULES[name] != BRIDGES)
    ]
    if settings.peers_python is None and PEER_MODULES.keys() & set(methods):
        parser.error("other optimizers need --peers-python")
    jobs = [
        Job(method, structure, budget, seed)
        for method in methods
        for structure in settings.structures
        for budget in settings.budgets
        for seed in range(settings.seeds)
    ]
    known = read_results(settings.results)
    failures = _run([job for job in jobs if job not in known], known, settings)
    chosen = [known[job] for job in jobs if job in known]
    names = {method: NAMES[method] for method in NAMES if method in methods}
    text = table(chosen, names, settings.structures, settings.budgets)
    print("\n".join([text, *failures]))
    if settings.write:
        write_between(ROOT / "benchmarks" / "README.md", "power", text)
        draw(ROOT / "docs" / "images" / "power.svg", chosen, names, settings.structures, settings.budgets)
    return 1 if failures else 0


def _run(jobs: Sequence[Job], known: dict[Job, Result], settings: argparse.Namespace) -> list[str]:
    """Run the jobs in worker processes, add their results to ``known``, and return messages about failures."""
    started, total, failures = monotonic(), len(known) + len(jobs), list[str]()
    with ThreadPoolExecutor(settings.processes) as pool:
        pending = {
            pool.submit(_work, list(some), known, settings)
            for _, some in groupby(jobs, key=lambda job: (job.method, job.structure))
        }
        while pending:
            done, pending = wait(pending, timeout=_PROGRESS_S, return_when=FIRST_COMPLETED)
            failures += [failure for future in done if (failure := future.result())]
            print(f"{len(known):,} of {total:,} searches, {monotonic() - started:,.0f} s", file=sys.stderr, flush=True)
    return failures


def _work(jobs: Sequence[Job], known: dict[Job, Result], settings: argparse.Namespace) -> str:
    """Run jobs of one method in a process of its own; return what went wrong, or nothing."""
    method = jobs[0].method
    module = PEER_MODULES.get(method, OURS)
    python = settings.peers_python.absolute() if method in PEER_MODULES and module != BRIDGES else sys.executable
    packages = [_packages(settings.peers_python)] if module == BRIDGES else []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log, tempfile.TemporaryFile("w+", encoding="utf-8") as todo:
        todo.writelines(json.dumps(asdict(job)) + "\n" for job in jobs)
        todo.seek(0)
        command = [python, "-m", "benchmarks.power.worker", module, *packages]
        with subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, env=_ENVIRONMENT, stdin=todo, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process:
            for line in process.stdout or ():
                result = Result.from_json(line)
                known[result.job] = result
                if settings.results is not None:
                    with settings.results.open("a", encoding="utf-8") as file:
                        file.write(line)
        if process.returncode == 0:
            return ""
        log.seek(0)
        last = [line for line in log.read().splitlines() if line.strip()][-1:]
    return f"{method} on {jobs[0].structure} failed: {' '.join(last) or process.returncode}"


def _packages(python: Path) -> str:
    """The folder of the packages of a Python environment."""
    command = [str(python.absolute()), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    found: str = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return found.strip()


if __name__ == "__main__":
    sys.exit(main())
