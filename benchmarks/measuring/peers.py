"""Other optimizers on the same task and endpoint: scripts in ``benchmarks/peers``, run by a Python of their own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.endpoint_process import ROOT
from benchmarks.measuring.ours import Load
from benchmarks.measuring.outcome import Subject
from benchmarks.simulated.domains import DOMAINS, write_task
from benchmarks.simulated.landscape import TICKETS


@dataclass(frozen=True, slots=True)
class Peer:
    """A script, and the name of what it runs."""

    name: str
    script: str


PEERS: dict[str, Peer] = {
    "copro": Peer("DSPy COPRO", "dspy_copro"),
    "gepa": Peer("GEPA", "gepa_reflective"),
    "opro": Peer("promptolution OPRO", "promptolution_opro"),
    "evoprompt": Peer("promptolution EvoPrompt", "promptolution_evoprompt"),
}


def peer_subject(peer: Peer, python: Path | None, load: Load, steps: int) -> Subject:
    """A peer with the settings of a load of ours, as far as it has them.

    Args:
        python: that has the packages of ``benchmarks/peers-requirements.txt``; ``None`` for this one.
        steps: of eight candidates each.
    """

    def command(base_url: str, folder: Path) -> list[str]:
        write_task(folder / TICKETS, TICKETS, 0, load.num_per_label)
        options = {"base-url": base_url, "data": folder / TICKETS, "prompt": DOMAINS[TICKETS].initial, "steps": steps}
        options |= {"concurrency": load.max_concurrency or load.limit, "labels": ",".join(DOMAINS[TICKETS].labels)}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        # A symbolic link as it is: what it points to knows nothing of the environment.
        return [str(python.absolute()) if python else sys.executable, "-m", f"benchmarks.peers.{peer.script}", *words]

    return Subject(
        name=peer.name,
        command=command,
        scores=lambda _, output: _last_scores(output),
        env={"PYTHONPATH": str(ROOT)},
        endpoint_options=load.endpoint_options,
        limit=load.limit,
        latency_s=load.latency_ms / 1000,
    )


def _last_scores(output: Path) -> tuple[float, float] | None:
    """The scores in the last line of JSON that a script printed."""
    for line in reversed(output.read_text(encoding="utf-8", errors="replace").splitlines()):
        if line.startswith('{"val":'):
            scores = json.loads(line)
            return scores["val"], scores["test"]
    return None
