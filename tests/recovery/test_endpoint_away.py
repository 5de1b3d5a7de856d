from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.recovery.conftest import LATENCY_S

if TYPE_CHECKING:
    from tests.recovery.conftest import Disturbed

pytestmark = pytest.mark.slow
AWAY_S = 65.0


def test_a_run_waits_for_an_endpoint_that_answers_503_for_a_minute(disturbed: Disturbed) -> None:
    def answer_503() -> None:
        disturbed.endpoint.behaviour = Behaviour(fail_next=10**9, error_status=503)
        time.sleep(AWAY_S)
        disturbed.endpoint.behaviour = Behaviour(latency_s=LATENCY_S)

    command = disturbed.start()
    disturbed.wait_for_calls()
    disturbed.lose("endpoint (503)", answer_503)
    done = command.finish(240)
    disturbed.require_the_same(done)
    assert re.search(r"waiting for \d\d s: \w+-model at \S+: HTTP 503: the endpoint fails", done.stderr), done.stderr


def test_a_run_waits_for_an_endpoint_that_refuses_connections_for_a_minute(disturbed: Disturbed) -> None:
    with SimulatedEndpoint(Behaviour(latency_s=LATENCY_S)) as disturbed.endpoint:
        command = disturbed.start()
        disturbed.wait_for_calls()
    first = disturbed.endpoint
    disturbed.lose("endpoint (no connection)", lambda: time.sleep(AWAY_S))
    port = int(first.base_url.rsplit(":", 1)[1].partition("/")[0])
    with SimulatedEndpoint(Behaviour(latency_s=LATENCY_S), port=port) as again:
        done = command.finish(240)
    disturbed.calls = [*first.requests, *again.requests]
    disturbed.require_the_same(done)
