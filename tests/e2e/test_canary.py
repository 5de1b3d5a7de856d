"""Everything goes wrong at once, and all files, outputs and Ray's memory are searched for planted secrets."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from benchmarks.simulated_endpoint import BadReply, Behaviour, SimulatedEndpoint
from tests.commands import announced_url
from tests.paths import read_json

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.configs import WriteConfig
    from tests.conftest import Until

# One in a variable, one in a file; with characters that JSON, HTML and URLs escape.
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
def env(folder: Path) -> dict[str, str]:
    # With as many log lines as possible.
    loud = {"OPENAI_LOG": "debug", "RAY_BACKEND_LOG_LEVEL": "debug", "RAY_SERVE_LOG_LEVEL": "DEBUG"}
    return {"OPENAI_API_KEY": KEY, "GPO_SERVE_TOKEN": TOKEN, "RAY_TMPDIR": str(folder / "ray"), **loud}


@pytest.fixture
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, folder: Path) -> Path:
    secret = folder / "key"
    secret.write_text(FILED, encoding="utf-8")
    optimizer = {"api_key_file": str(secret), "max_attempts": 6}
    return write_config(
        folder,
        endpoint.base_url,
        run={"seeds": [0, 1]},
        models={"optimizer": optimizer},
        optimizer={"steps": 2, "candidates": 8},
        # A huge reply is refused, which leaves its example unscored.
        evaluation={"max_unscored": 0.5},
    )


def leaks(folder: Path) -> list[str]:
    """The files below a folder that hold a canary, except the key file itself."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path != folder / "key" and stat.S_ISREG(path.lstat().st_mode) and CANARY in path.read_bytes():
                found.append(str(path))
    return found


def memory_of_gcs(command: Started) -> bytes:
    """The heap of Ray's GCS server: jobs, actors with their arguments, environments, keys and values.

    Not its environment variables, which every process inherits.
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
            with suppress(OSError):  # unmapped by now, or never written
                memory.seek(start)
                yield memory.read(end - start)


def test_a_run_on_a_faulty_endpoint_completes_and_leaks_no_key(
    endpoint: SimulatedEndpoint, gpo: Gpo, config: Path, folder: Path, env: dict[str, str], until: Until
) -> None:
    endpoint.behaviour = ALL_AT_ONCE
    command = gpo.start("run", config, "--run-dir", "results", cwd=folder, env=env)
    until(lambda: len(endpoint.requests) > 60, "the run calls models")
    state = memory_of_gcs(command)
    finished = command.finish()
    assert finished.code == 0, finished.stderr

    # Everything went wrong.
    bad = {record.bad for record in endpoint.requests}
    assert bad >= set(BadReply) - {BadReply.WRONG_TAG, BadReply.DUPLICATE, BadReply.IDENTICAL, BadReply.INJECTION}
    assert bad & {BadReply.WRONG_TAG, BadReply.DUPLICATE, BadReply.IDENTICAL, BadReply.INJECTION}
    assert 500 in {record.status for record in endpoint.requests}
    summary = read_json(folder / "results" / "summary.json")
    assert summary["status"] == "completed"
    task = summary["llm"]["task"]
    assert all(task[name] > 0 for name in ("retries", "failures", "empty", "truncated", "unmetered")), task
    assert sum(row["samples"][name] for row in summary["trajectories"] for name in ("malformed", "failed")) > 0

    # The keys are nowhere, though other values are.
    assert b"task-model" in state
    assert CANARY not in state
    assert (folder / "ray").exists()
    assert b"***" in b"".join(path.read_bytes() for path in folder.glob("completions.sqlite*"))
    assert leaks(folder) == []
    assert "canary" not in finished.stdout + finished.stderr


def test_a_run_whose_key_is_refused_half_way_ends_with_one_line_and_leaks_no_key(
    endpoint: SimulatedEndpoint, gpo: Gpo, config: Path, folder: Path, env: dict[str, str], until: Until
) -> None:
    endpoint.behaviour = Behaviour(latency_s=0.02, repeats_key=True)
    command = gpo.start("run", config, "--run-dir", "results", cwd=folder, env=env)
    until(lambda: len(endpoint.requests) > 60, "the run calls models")
    endpoint.behaviour = Behaviour(fail_next=10_000, error_status=401, repeats_key=True)
    half_way = len(endpoint.requests)
    finished = command.finish()
    assert finished.code == 2
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("gpo: error:")]
    assert re.search(r"models\.(task\.api_key_env|optimizer\.api_key_file)", line)
    assert not [word for word in ("HTTP 401", "set a key", "***") if word not in line], line
    # The calls in flight end, and no other call is made again and again.
    assert [record.status for record in endpoint.requests[half_way:]].count(401) <= 2 * 3 * 20
    assert read_json(folder / "results" / "summary.json")["status"] == "failed"
    evaluated = gpo("evaluate", config, "--prompt", "Never asked before.", cwd=folder, env=env)
    assert evaluated.code != 0
    assert leaks(folder) == []
    assert "canary" not in finished.stdout + finished.stderr + evaluated.stdout + evaluated.stderr


def test_the_interface_needs_its_token_and_shows_neither_key_nor_token(
    endpoint: SimulatedEndpoint, gpo: Gpo, config: Path, folder: Path, env: dict[str, str]
) -> None:
    command = gpo.start("serve", config, "--port", 0, cwd=folder, env=env)
    body, bearer = {"task": "triage", "prompt": "Think."}, {"Authorization": f"Bearer {TOKEN}"}
    replies = []
    with httpx2.Client(base_url=announced_url(command), timeout=60, trust_env=False) as client:
        wrong = [None, "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \xe9"]
        for (path, method), given in product((("/v1/evaluate", "POST"), ("/v1/tasks", "GET")), wrong):
            headers = {} if given is None else {b"authorization": given.encode("latin-1")}
            replies += [refused := client.request(method, path, json=body, headers=headers)]
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), (path, given)
        assert client.post("/v1/evaluate", json={**body, "split": "test"}, headers=bearer).status_code == 200
        endpoint.behaviour = Behaviour(fail_next=10_000, error_status=400, repeats_key=True)
        replies += [client.post("/v1/evaluate", json=body, headers=bearer)]
        endpoint.behaviour = Behaviour(fail_next=10_000, error_status=401, repeats_key=True)
        replies += [masked := client.post("/v1/evaluate", json=body, headers=bearer)]
        replies += [client.get(f"/v1/{TOKEN[:6]}", headers=bearer), client.get("/docs", headers=bearer)]
    assert [reply.status_code for reply in replies[-4:]] == [502, 502, 404, 200]
    assert "***" in masked.text
    state = memory_of_gcs(command)
    assert b"task-model" in state
    assert CANARY not in state
    command.process.terminate()
    finished = command.finish()
    assert finished.code == 0, finished.stderr
    assert not [reply.text for reply in replies if "canary" in reply.text.replace(f"/v1/{TOKEN[:6]}", "")]
    assert leaks(folder) == []
    assert "canary" not in finished.stdout + finished.stderr


def test_the_search_finds_a_leak(folder: Path) -> None:
    (folder / "key").write_text(KEY, encoding="utf-8")
    assert leaks(folder) == []
    (folder / "ray").mkdir()
    (folder / "ray" / "worker.err").write_text(f"Bearer {KEY}", encoding="utf-8")
    os.mkfifo(folder / "ray" / "pipe")
    assert leaks(folder) == [str(folder / "ray" / "worker.err")]
