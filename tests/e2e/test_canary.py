"""Secrets are planted, everything goes wrong at once, and whatever a command leaves behind is searched for them."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from benchmarks.simulated_endpoint import BadReply, Behaviour, SimulatedEndpoint

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

# One in a variable, one in a file; characters that JSON, HTML and URLs write in another way.
KEY, FILED = 'sk-canary-5d1f0b/"env"&', "sk-canary-77e2c9'<file>%"
TOKEN = "canary-token-3b8a41"
CANARY = b"canary"

ALL_AT_ONCE = Behaviour(
    latency_s=0.01,
    error_rate=0.05,
    repeats_key=True,
    bad_replies=dict.fromkeys(BadReply, 0.5 / len(BadReply)),
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of so short a name that Ray's sockets fit below it."""
    folder = Path(tempfile.mkdtemp(prefix="gc-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def env(place: Path) -> dict[str, str]:
    # As talkative as can be.
    loud = {"OPENAI_LOG": "debug", "RAY_BACKEND_LOG_LEVEL": "debug", "RAY_SERVE_LOG_LEVEL": "DEBUG"}
    return {"OPENAI_API_KEY": KEY, "GPO_SERVE_TOKEN": TOKEN, "RAY_TMPDIR": str(place / "ray"), **loud}


@pytest.fixture
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, place: Path) -> Path:
    secret = place / "key"
    secret.write_text(FILED, encoding="utf-8")
    optimizer = {"api_key_file": str(secret), "max_attempts": 6}
    return write_config(
        place,
        endpoint.base_url,
        run={"seeds": [0, 1]},
        models={"optimizer": optimizer},
        optimizer={"steps": 2, "candidates": 8},
        # A huge reply is refused, and leaves its example unscored.
        evaluation={"max_unscored": 0.5},
    )


def leaks(place: Path) -> list[str]:
    """The files below a folder that hold a canary, but for the file of the key itself."""
    found = []
    for path in place.rglob("*"):
        with suppress(FileNotFoundError):
            if path != place / "key" and stat.S_ISREG(path.lstat().st_mode) and CANARY in path.read_bytes():
                found.append(str(path))
    return found


def memory_of_gcs(command: Started) -> bytes:
    """What Ray's store of the cluster's state holds: jobs, actors with their arguments, environments, keys and values.

    Its heap, that is; the environment that every process inherits is not there.
    """
    for number in command.numbers():
        process = Path(f"/proc/{number}")
        if "gcs_server" in (process / "cmdline").read_text(encoding="utf-8").split("\0")[0]:
            with (process / "mem").open("rb", buffering=0) as memory:
                return b"".join(_heap(process, memory))
    raise AssertionError("no gcs_server")


def _heap(process: Path, memory: Any) -> Iterator[bytes]:
    for line in (process / "maps").read_text(encoding="utf-8").splitlines():
        limits, access, _, _, _, *name = line.split(maxsplit=5)
        if access.startswith("rw") and (not name or name[0] == "[heap]"):
            start, end = (int(limit, 16) for limit in limits.split("-"))
            with suppress(OSError):  # gone, or never written
                memory.seek(start)
                yield memory.read(end - start)


def test_a_run_on_an_endpoint_that_does_everything_wrong_completes_and_holds_no_key(
    endpoint: SimulatedEndpoint, gpo: Gpo, config: Path, place: Path, env: dict[str, str], until: Until
) -> None:
    endpoint.behaviour = ALL_AT_ONCE
    command = gpo.start("run", config, "--run-dir", "results", cwd=place, env=env)
    until(lambda: len(endpoint.requests) > 60, "the run calls models")
    state = memory_of_gcs(command)
    finished = command.finish()
    assert finished.code == 0, finished.stderr

    # Everything did go wrong.
    bad = {record.bad for record in endpoint.requests}
    assert bad >= set(BadReply) - {BadReply.WRONG_TAG, BadReply.DUPLICATE, BadReply.IDENTICAL, BadReply.INJECTION}
    assert bad & {BadReply.WRONG_TAG, BadReply.DUPLICATE, BadReply.IDENTICAL, BadReply.INJECTION}
    assert 500 in {record.status for record in endpoint.requests}
    summary = json.loads((place / "results" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "completed"
    task = summary["llm"]["task"]
    assert all(task[name] > 0 for name in ("retries", "failures", "empty", "truncated", "unmetered")), task
    assert sum(row["samples"][name] for row in summary["trajectories"] for name in ("malformed", "failed")) > 0

    # And is nowhere to be found, where other things are.
    assert b"task-model" in state
    assert CANARY not in state
    assert (place / "ray").exists()
    assert b"***" in b"".join(path.read_bytes() for path in place.glob("completions.sqlite*"))
    assert leaks(place) == []
    assert "canary" not in finished.stdout + finished.stderr


def test_a_run_that_is_refused_half_way_names_no_key(
    endpoint: SimulatedEndpoint, gpo: Gpo, config: Path, place: Path, env: dict[str, str], until: Until
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.02, repeats_key=True)
    command = gpo.start("run", config, "--run-dir", "results", cwd=place, env=env)
    until(lambda: len(endpoint.requests) > 60, "the run calls models")
    endpoint.behaviour = Behaviour(fail_next=10_000, error_status=401, repeats_key=True)
    finished = command.finish()
    assert finished.code != 0
    assert "api_key" in finished.stderr
    assert "***" in finished.stderr
    evaluated = gpo("evaluate", config, "--prompt", "Never asked before.", cwd=place, env=env)
    assert evaluated.code != 0
    assert leaks(place) == []
    assert "canary" not in finished.stdout + finished.stderr + evaluated.stdout + evaluated.stderr


def test_the_interface_tells_neither_key_nor_token(
    endpoint: SimulatedEndpoint, gpo: Gpo, config: Path, place: Path, env: dict[str, str]
) -> None:
    command = gpo.start("serve", config, "--port", 0, cwd=place, env=env)
    assert command.process.stderr is not None
    said = ""
    while not (found := re.search(r"at (http://127\.0\.0\.1:\d+)/v1/evaluate", said)):
        said += command.process.stderr.readline()
    replies = []
    with httpx2.Client(base_url=found[1], timeout=60, trust_env=False) as client:
        body, bearer = {"task": "triage", "prompt": "Think."}, {"Authorization": f"Bearer {TOKEN}"}
        endpoint.behaviour = Behaviour(fail_next=10_000, error_status=400, repeats_key=True)
        replies += [client.post("/v1/evaluate", json=body, headers=bearer)]
        endpoint.behaviour = Behaviour(fail_next=10_000, error_status=401, repeats_key=True)
        replies += [client.post("/v1/evaluate", json=body, headers=bearer)]
        replies += [client.post("/v1/evaluate", json=body, headers={"Authorization": f"Bearer {TOKEN}x"})]
        replies += [client.get(f"/v1/{TOKEN[:6]}", headers=bearer), client.get("/docs", headers=bearer)]
    assert [reply.status_code for reply in replies] == [502, 502, 401, 404, 200]
    assert "***" in replies[1].text
    state = memory_of_gcs(command)
    assert b"task-model" in state
    assert CANARY not in state
    command.process.terminate()
    finished = command.finish()
    assert finished.code == 0, finished.stderr
    assert not [reply.text for reply in replies if "canary" in reply.text.replace(f"/v1/{TOKEN[:6]}", "")]
    assert leaks(place) == []
    assert "canary" not in said + finished.stdout + finished.stderr


def test_the_search_itself_finds_what_is_there(place: Path) -> None:
    (place / "key").write_text(KEY, encoding="utf-8")
    assert leaks(place) == []
    (place / "ray").mkdir()
    (place / "ray" / "worker.err").write_text(f"Bearer {KEY}", encoding="utf-8")
    os.mkfifo(place / "ray" / "pipe")
    assert leaks(place) == [str(place / "ray" / "worker.err")]
