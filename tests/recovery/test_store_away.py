"""The object store with a run's checkpoints is away for longer than the run waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.folder import Folder
from actors.search import SearchKey
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from cluster.runs.run_folder import RunFolder
from tests.commands import Gpo
from tests.configs import WriteConfig
from tests.conftest import ObjectStore, Until

pytestmark = pytest.mark.slow
STEPS = 4


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore() as running:
        yield running


def test_a_run_stops_without_its_object_store_and_resumes_with_it(
    endpoint: SimulatedEndpoint, store: ObjectStore, gpo: Gpo, until: Until, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.05)
    config = write_config(tmp_path, endpoint.base_url, run={"seeds": [0]}, optimizer={"steps": STEPS, "candidates": 3})
    url = store.new_folder()
    folder, command = Folder(url), ("run", config, "--run-dir", url, "--resume")

    def num_steps() -> int:
        checkpoint = RunFolder(folder).checkpoints.load(SearchKey("triage", 0))
        return len(checkpoint.trajectory.steps) if checkpoint else -1

    started = gpo.start(*command, cwd=tmp_path)
    until(lambda: num_steps() >= 1, "a step is done")
    store.stop()
    ended = started.finish(timeout_s=300)
    assert ended.code == 1
    assert "cannot be written" in " ".join(ended.stderr.split())
    assert url in ended.stderr
    assert not started.survivors()

    store.start_again()
    assert 1 <= num_steps() < STEPS
    resumed = gpo(*command, cwd=tmp_path)
    assert resumed.code == 0, resumed.stderr
    assert num_steps() == STEPS
    paid = [call.content for call in endpoint.requests if call.model == "task-model" and call.status == 200]
    assert len(paid) == len(set(paid))  # the completion cache has the answers that no checkpoint has
