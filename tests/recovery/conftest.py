"""Losses that take minutes to recover from; ``make recovery`` runs these tests."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import AccessRecord, Behaviour, SimulatedEndpoint
from tests.configs import write_small_config
from tests.e2e.conftest import gpo

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo, Started
    from tests.conftest import Until

__all__ = ["gpo"]

LATENCY_S = 0.15
_NOTICED_S, _WRITTEN_S = 1.5, 0.5


def _write_long_config(folder: Path, base_url: str, **changes: Any) -> Path:
    """A run of half a minute: two trajectories in an actor each, two replicas, completions on this machine."""
    folder.mkdir(exist_ok=True)
    return write_small_config(
        folder,
        base_url,
        models={"task": {"max_concurrency": 8}, "optimizer": {"max_concurrency": 4}},
        # So many calls that nodes are lost in the middle.
        preset="paper",
        optimizer={"steps": 5, "candidates": 4},
        cluster={"trajectories_per_actor": 1, "evaluator_replicas": 2},
        **changes,
    )


def _results(folder: Path) -> dict[str, Any]:
    """The results of a run, without its costs."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {
        "status": summary["status"],
        "trajectories": summary["trajectories"],
        "best": json.loads((folder / "best_prompts.json").read_text(encoding="utf-8")),
    }


@dataclass(frozen=True, slots=True)
class Loss:
    """A part that was lost and came back, in seconds on the system's monotonic clock."""

    what: str
    at_s: float
    until_s: float


@dataclass
class Disturbed:
    """A run that loses parts, and the results of the same run without losses.

    Attributes:
        folder: of the run.
        calls: of the run; those to ``endpoint`` by default.
    """

    endpoint: SimulatedEndpoint
    gpo: Gpo
    until: Until
    cwd: Path
    expected: dict[str, Any]
    folder: Path = field(init=False)
    config: Path = field(init=False)
    losses: list[Loss] = field(default_factory=list)
    calls: list[AccessRecord] | None = None

    def __post_init__(self) -> None:
        self.folder = self.cwd / "results"

    def write_config(self, base_url: str | None = None, **changes: Any) -> Path:
        self.config = _write_long_config(self.cwd, base_url or self.endpoint.base_url, **changes)
        return self.config

    def start(self, *options: object, program: Sequence[str] = ("-m", "cluster.cli")) -> Started:
        """Start ``gpo run``, with what it needs to join a cluster that this process started."""
        arguments = ("run", self.write_config(), "--run-dir", "results", *options)
        return self.gpo.start(*arguments, cwd=self.cwd, env=ray_token(), program=program)

    def wait_for_calls(self, number: int = 100) -> None:
        self.until(lambda: len(self.endpoint.requests) > number, "the run calls models")

    def lose(self, what: str, lose: Callable[[], object]) -> None:
        """Call a function that takes a part away and brings another one back."""
        at_s = time.monotonic()
        lose()
        self.losses.append(Loss(what, at_s, time.monotonic()))

    def require_the_same(self, done: Finished) -> None:
        """The run has the expected results and repeated no call without need; print how long it was held up."""
        assert done.code == 0, done.stderr
        assert _results(self.folder) == self.expected
        calls = self.endpoint.requests if self.calls is None else self.calls
        assert _repeated(calls, self.losses) == []
        for loss in self.losses:
            _print_gap(loss, calls)


@pytest.fixture
def disturbed(endpoint: SimulatedEndpoint, gpo: Gpo, until: Until, tmp_path: Path) -> Disturbed:
    """Ready to start; the run without losses is over."""
    config = _write_long_config(tmp_path / "calm", endpoint.base_url)
    done = gpo("run", config, "--run-dir", "results", cwd=config.parent)
    assert done.code == 0, done.stderr
    endpoint.requests.clear()
    endpoint.behaviour = Behaviour(latency_s=LATENCY_S)
    return Disturbed(endpoint, gpo, until, tmp_path / "lost", _results(config.parent / "results"))


def ray_token() -> dict[str, str]:
    """The variables with which a command joins a cluster that this process started."""
    return {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}


def _print_gap(loss: Loss, calls: Sequence[AccessRecord]) -> None:
    finished = sorted(call.finished_s for call in calls if call.finished_s > loss.at_s and call.status == 200)
    longest = max((later - earlier for earlier, later in pairwise([loss.at_s, *finished])), default=0.0)
    first_s = next((moment - loss.until_s for moment in finished if moment > loss.until_s), float("nan"))
    print(
        f"\n{loss.what}: away for {loss.until_s - loss.at_s:.1f} s; no reply for {longest:.1f} s at most; the first "
        f"reply {first_s:.1f} s after it was back"
    )


def _repeated(calls: Sequence[AccessRecord], losses: Sequence[Loss]) -> list[AccessRecord]:
    """Answered calls that were repeated although they were not in flight at a loss.

    An answer counts as in flight until it is written, and so do the calls of processes that have not yet noticed the
    loss of their node.
    """
    answered = [call for call in calls if call.status == 200 and call.model]
    times = Counter(call.content for call in answered)

    def was_in_flight(content: str) -> bool:
        return any(
            call.started_s - _NOTICED_S < loss.at_s < call.finished_s + _WRITTEN_S
            for call in answered
            for loss in losses
            if call.content == content
        )

    return [call for call in answered if times[call.content] > 1 and not was_in_flight(call.content)]
