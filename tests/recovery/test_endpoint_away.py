from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.recovery.conftest import LATENCY_S, Loss, now, repeated, results

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.conftest import Until

pytestmark = pytest.mark.slow
AWAY_S = 65.0


@pytest.mark.parametrize("answer", ["no connection", "503"])
def test_an_endpoint_that_is_away_for_a_minute_is_waited_for(
    answer: str,
    endpoint: SimulatedEndpoint,
    undisturbed: dict[str, Any],
    gpo: Gpo,
    write_long_config: Callable[[Path, str], Path],
    until: Until,
    tmp_path: Path,
) -> None:
    first = SimulatedEndpoint(Behaviour(latency_s=LATENCY_S))
    calls = []
    with first:
        config = write_long_config(tmp_path / "away", first.base_url)
        command = gpo.start("run", config, "--run-dir", "results", cwd=config.parent)
        until(lambda: len(first.requests) > 100, "the run is under way")
        lost = now()
        if answer == "503":
            first.behaviour = Behaviour(fail_next=10**9, error_status=503)
            time.sleep(AWAY_S)
            first.behaviour = Behaviour(latency_s=LATENCY_S)
            loss = Loss(f"endpoint ({answer})", lost, now())
            done = command.finish(240)
            calls = list(first.requests)
    if answer != "503":
        time.sleep(AWAY_S)
        port = int(first.base_url.rsplit(":", 1)[1].partition("/")[0])
        with SimulatedEndpoint(Behaviour(latency_s=LATENCY_S), port=port) as again:
            loss = Loss(f"endpoint ({answer})", lost, now())
            done = command.finish(240)
            calls = [*first.requests, *again.requests]
    assert done.code == 0, done.stderr
    assert results(config.parent / "results") == undisturbed
    assert repeated(calls, [loss]) == []
    loss.report(calls)
