"""``gpo serve`` with a token, on an endpoint with a key; ``tests/unit/serve`` has every refusal, in one process."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgpack
import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.commands import announced_url, gpo_in_this_process
from tests.e2e.secrets import CANARY, leaks, memory_of_gcs
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.commands import Gpo, Started
    from tests.configs import WriteConfig

GOOD = "Read carefully and classify the customer ticket: answer with exactly one category label, a single word only."
MSGPACK = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
KEY, TOKEN = 'sk-canary-5d1f0b/"env"&', "canary-token-3b8a41"

PROGRAM = {
    "name": "program",
    "program": {"function": "desk:answer", "folder": str(ROOT / "examples" / "support_desk")},
    "prompts": {"topic": "Which topic?", "desk": "Which desk?"},
    "prompt": None,
    "position": "question_end",
}


@dataclass(frozen=True)
class Server:
    """A running ``gpo serve``, and a client that has its token."""

    command: Started
    client: httpx2.Client
    config: Path

    def evaluate(self, **body: Any) -> httpx2.Response:
        return self.client.post("/v1/evaluate", json=body)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def server(endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="gc-"))  # short enough for Ray's sockets
    tasks = [{}, {"name": "desks", "prompt": "Which desk?"}, PROGRAM]
    config = write_config(folder, endpoint.base_url, tasks=tasks)
    # With as many log lines as possible.
    loud = {"OPENAI_LOG": "debug", "RAY_BACKEND_LOG_LEVEL": "debug", "RAY_SERVE_LOG_LEVEL": "DEBUG"}
    env = {"OPENAI_API_KEY": KEY, "GPO_SERVE_TOKEN": TOKEN, "RAY_TMPDIR": str(folder / "ray"), **loud}
    command = gpo.start("serve", config, "--port", 0, cwd=folder, env=env)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with httpx2.Client(base_url=announced_url(command), timeout=60, trust_env=False, headers=bearer) as client:
        yield Server(command, client, config)
    command.interrupt()
    finished = command.finish()
    assert finished.code == 0, finished.stderr
    assert leaks(folder) == []
    assert "canary" not in finished.stdout + finished.stderr
    shutil.rmtree(folder, ignore_errors=True)


def test_prompts_are_scored_in_the_order_of_the_request(server: Server, endpoint: SimulatedEndpoint) -> None:
    before = len(endpoint.requests)
    reply = server.evaluate(task="triage", prompts=["Think.", GOOD], split="test")
    assert reply.status_code == 200, reply.text
    document = reply.json()
    assert (document["task"], document["split"]) == ("triage", "test")
    assert [score["prompt"] for score in document["scores"]] == ["Think.", GOOD]
    worse, better = document["scores"]
    assert 0 <= worse["mean"] < better["mean"] <= 1
    assert len(better["values"]) == better["usage"]["requests"] == 30
    assert len(endpoint.requests) - before == 2 * 30


def test_the_score_equals_that_of_gpo_evaluate(server: Server) -> None:
    cwd = server.config.parent
    options = ("--prompt", GOOD, "--output", "score.json")
    finished = gpo_in_this_process("evaluate", server.config, *options, cwd=cwd, env={"OPENAI_API_KEY": KEY})
    assert finished.code == 0, finished.stderr
    document = json.loads((cwd / "score.json").read_text(encoding="utf-8"))
    (score,) = server.evaluate(task="triage", prompt=GOOD).json()["scores"]
    cost = score.pop("usage")
    assert {name: document[name] for name in score} == score
    assert (document["usage"]["requests"], cost["requests"], cost["cached"]) == (20, 0, 20)


def test_the_prompts_of_a_program_are_scored_together(server: Server, endpoint: SimulatedEndpoint) -> None:
    before = len(endpoint.requests)
    reply = server.evaluate(task="program", prompt=f"[[topic]]\n{GOOD}\n\n[[desk]]\n{GOOD}")
    assert reply.status_code == 200, reply.text
    (score,) = reply.json()["scores"]
    assert score["usage"]["requests"] == len(endpoint.requests) - before > 20
    assert score["mean"] > 0.3
    refused = server.evaluate(task="program", prompt=GOOD)
    assert (refused.status_code, "has the parts none, not topic, desk" in refused.text) == (422, True)


def test_msgpack_and_json_hold_the_same_scores(server: Server) -> None:
    body = {"task": "desks", "prompt": GOOD, "split": "val"}
    as_msgpack = server.client.post("/v1/evaluate", content=msgpack.packb(body), headers=MSGPACK)
    assert as_msgpack.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(as_msgpack.content) == server.evaluate(**body).json()


def test_the_server_describes_itself_and_its_tasks(server: Server) -> None:
    sizes = {"train": 24, "val": 20, "test": 30}
    assert server.client.get("/v1/tasks").json() == {"tasks": {"triage": sizes, "desks": sizes, "program": sizes}}
    described = server.client.get("/openapi.json").json()
    content = described["paths"]["/v1/evaluate"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/msgpack"}
    assert "prompts" in content["application/json"]["schema"]["properties"]
    page = server.client.get("/docs")
    assert (page.status_code, "text/html" in page.headers["content-type"]) == (200, True)
    assert server.client.get("/health").json() == {"status": "ok"}


def test_an_invalid_request_is_refused_before_any_call(server: Server, endpoint: SimulatedEndpoint) -> None:
    before = len(endpoint.requests)
    unknown = server.evaluate(task="nowhere", prompt=GOOD)
    assert (unknown.status_code, "desks, program, triage" in unknown.text) == (404, True)
    assert server.evaluate(task="triage").status_code == 422
    assert server.client.post("/v1/evaluate", content=b"\x82\xa4task", headers=MSGPACK).status_code == 400
    assert len(endpoint.requests) == before


def test_requests_need_the_token_and_replies_show_neither_key_nor_token(
    server: Server, endpoint: SimulatedEndpoint
) -> None:
    client, body = server.client, {"task": "triage", "prompt": "Never asked before."}
    replies = []
    wrong = ["", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \xe9"]
    for (path, method), given in product((("/v1/evaluate", "POST"), ("/v1/tasks", "GET")), wrong):
        replies += [
            refused := client.request(method, path, json=body, headers={b"authorization": given.encode("latin-1")})
        ]
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), (path, given)
    for status in (400, 401):
        endpoint.behaviour = Behaviour(fail_next=10_000, error_status=status, repeats_key=True)
        replies += [masked := server.evaluate(**body)]
        assert masked.status_code == 502
    endpoint.behaviour = Behaviour()
    assert "***" in masked.text
    replies += [client.get("/v1/canary")]
    assert not [reply.text for reply in replies if "canary" in reply.text.replace("/v1/canary", "")]
    state = memory_of_gcs(server.command)
    assert b"task-model" in state
    assert CANARY not in state
