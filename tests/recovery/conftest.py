"""Losses that take minutes to get over: not part of the usual tests, see ``make recovery``."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import AccessRecord, Behaviour, SimulatedEndpoint
from tests.e2e.conftest import gpo

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig

__all__ = ["gpo"]

LATENCY_S = 0.15
NOTICED_S, WRITTEN_S = 1.5, 0.5


@pytest.fixture
def ray_token() -> Mapping[str, str]:
    """What a command needs to join a cluster that was started from here."""
    return {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}


def results(folder: Path) -> dict[str, Any]:
    """What a run found out, without what it cost."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {
        "status": summary["status"],
        "trajectories": summary["trajectories"],
        "best": json.loads((folder / "best_prompts.json").read_text(encoding="utf-8")),
    }


@pytest.fixture
def write_long_config(write_config: WriteConfig) -> Callable[[Path, str], Path]:
    """A run of half a minute: two trajectories in an actor each, two replicas, completions on this machine."""

    def write(folder: Path, base_url: str, **changes: Any) -> Path:
        folder.mkdir(exist_ok=True)
        return write_config(
            folder,
            base_url,
            models={"task": {"max_concurrency": 8}, "optimizer": {"max_concurrency": 4}},
            optimizer={"steps": 5, "candidates": 4},
            cluster={"trajectories_per_actor": 1, "evaluator_replicas": 2},
            **changes,
        )

    return write


@pytest.fixture
def undisturbed(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_long_config: Callable[[Path, str], Path], tmp_path: Path
) -> dict[str, Any]:
    """What a run comes to that nothing happens to."""
    config = write_long_config(tmp_path / "calm", endpoint.base_url)
    done = gpo("run", config, "--run-dir", "results", cwd=config.parent)
    assert done.code == 0, done.stderr
    endpoint.requests.clear()
    endpoint.behaviour = Behaviour(latency_s=LATENCY_S)
    return results(config.parent / "results")


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that was taken away, and what it did to the calls.

    Attributes:
        at_s: when, on the system's monotonic clock.
        until_s: when there was something again in its place.
    """

    what: str
    at_s: float
    until_s: float

    def report(self, calls: list[AccessRecord]) -> None:
        """Print how long no call was answered."""
        finished = sorted(call.finished_s for call in calls if call.finished_s > self.at_s and call.status == 200)
        longest = max((later - earlier for earlier, later in pairwise([self.at_s, *finished])), default=0.0)
        after = [moment for moment in finished if moment > self.until_s]
        print(
            f"\n{self.what}: away for {self.until_s - self.at_s:.1f} s; no reply for {longest:.1f} s at most; the "
            f"first one {after[0] - self.until_s if after else float('nan'):.1f} s after it was back"
        )


def repeated(calls: list[AccessRecord], losses: list[Loss]) -> list[AccessRecord]:
    """Answered calls that were made again, though none of them was in flight when something was lost.

    An answer counts as in flight until it is written, and so do the calls of processes that have not noticed yet that
    their node is gone.
    """
    answered = [call for call in calls if call.status == 200 and call.model]
    times = Counter(call.content for call in answered)

    def was_in_flight(content: str) -> bool:
        return any(
            call.started_s - NOTICED_S < loss.at_s < call.finished_s + WRITTEN_S
            for call in answered
            for loss in losses
            if call.content == content
        )

    return [call for call in answered if times[call.content] > 1 and not was_in_flight(call.content)]


def now() -> float:
    """The clock of ``Loss``."""
    return time.monotonic()
