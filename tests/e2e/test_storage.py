"""A run in an object store, on a full disk, and in a folder that another process takes over."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from actors.folder import Folder
from actors.lease import Lease
from actors.search import SearchKey
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from cluster.runs.run_folder import RunFolder
from gpo.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig
    from tests.conftest import ObjectStore, Until

pytestmark = pytest.mark.slow

KEY = SearchKey("triage", 0)
STEPS, CANDIDATES = 4, 3
SLOW = Behaviour(latency_s=0.05)
"""Slow enough for something to happen during a step."""


@pytest.fixture
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path: Path) -> Path:
    endpoint.behaviour = SLOW
    return write_config(
        tmp_path,
        endpoint.base_url,
        run={"seeds": [0]},
        models={"task": {"max_concurrency": 4}},
        optimizer={"steps": STEPS, "candidates": CANDIDATES},
        cache={"kind": "none"},  # so that the checkpoints alone save calls
    )


def saved(folder: Folder) -> Checkpoint | None:
    return RunFolder(folder).checkpoints.load(KEY)


def num_steps(folder: Folder) -> int:
    checkpoint = saved(folder)
    return len(checkpoint.trajectory.steps) if checkpoint else -1


def is_scoring(folder: Folder) -> bool:
    checkpoint = saved(folder)
    return checkpoint is not None and checkpoint.trajectory.proposal is not None and num_steps(folder) >= 1


def paid(endpoint: SimulatedEndpoint, model: str, before: int = 0) -> Counter[str]:
    calls = endpoint.requests[before:]
    return Counter(call.content for call in calls if call.model == model and call.status == 200)


def test_a_run_in_an_object_store_outlives_its_process_and_has_one_process_at_a_time(
    endpoint: SimulatedEndpoint, config: Path, gpo: Gpo, until: Until, object_store: ObjectStore
) -> None:
    url = object_store.new_folder()
    folder, command = Folder(url), ("run", config, "--run-dir", url, "--resume")
    first = gpo.start(*command, cwd=config.parent)
    until(lambda: num_steps(folder) >= 0, "the initial prompt is scored")
    endpoint.behaviour = Behaviour(latency_s=1.0)  # the run is to last longer than the next steps of this test

    refused = gpo(*command, cwd=config.parent)
    assert refused.code == 2
    assert f"--run-dir: '{url}' is in use by process {first.process.pid} on " in refused.stderr
    assert "--resume" in refused.stderr
    assert first.process.poll() is None

    # At the beginning of a step, whose last calls are answered before the last actor notices the loss of its driver.
    before_it = num_steps(folder)
    until(lambda: num_steps(folder) > before_it, "another step is done")
    until(lambda: is_scoring(folder), "a step has its prompts and no scores")
    first.process.kill()
    first.finish()
    assert is_scoring(folder)
    before = len(endpoint.requests)

    endpoint.behaviour = Behaviour()
    resumed = gpo(*command, cwd=config.parent)  # at once, since the holder of the lease is dead
    assert resumed.code == 0, resumed.stderr
    assert url in resumed.stdout + resumed.stderr
    bought = paid(endpoint, "opt-model")
    assert (bought.total(), max(bought.values())) == (STEPS * CANDIDATES, 1)
    scored, again = paid(endpoint, "task-model"), paid(endpoint, "task-model", before)
    # Only the candidates of the unfinished step are scored again.
    assert (scored - Counter(set(scored))).total() <= CANDIDATES * 20
    assert again
    assert set(folder.names()) >= {"summary.json", "best_prompts.json", "steps.jsonl", "report.html", "config.yaml"}
    assert b'"status": "completed"' in (folder.read("summary.json") or b"")
    Lease.take(folder).release()  # the run has released it


def test_a_run_writes_nothing_after_another_process_took_it_over(
    config: Path, gpo: Gpo, until: Until, tmp_path: Path
) -> None:
    folder = Folder(str(tmp_path / "run"))
    command = gpo.start("run", config, "--run-dir", folder.url, cwd=config.parent)
    until(lambda: num_steps(folder) >= 0, "the initial prompt is scored")

    # As if the process had been suspended for longer than its lease: the next number belongs to another process.
    (name,) = (folder / ".lease").names()
    content = (folder / ".lease").read(name) or b""
    assert (folder / ".lease").create("000002.json", content)
    taken = saved(folder)
    ended = command.finish()

    assert ended.code == 1
    assert "was taken over by process" in ended.stderr
    assert saved(folder) == taken
    assert not command.survivors()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this user may not mount file systems")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_run_on_a_full_disk_stops_and_keeps_its_last_checkpoint(
    config: Path, gpo: Gpo, until: Until, small_disk: Path
) -> None:
    folder = Folder(str(small_disk / "run"))
    command = gpo.start("run", config, "--run-dir", folder.url, cwd=config.parent)
    until(lambda: num_steps(folder) >= 1, "a step is done")
    (small_disk / "rest").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    ended = command.finish()

    assert ended.code == 1
    printed = " ".join(ended.stderr.split() + ended.stdout.replace("│", " ").split())
    assert "cannot be written: [Errno 28] No space left on device" in printed
    assert 1 <= num_steps(folder) < STEPS
    assert not command.survivors()
