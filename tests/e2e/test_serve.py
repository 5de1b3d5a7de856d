from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgpack
import pytest

from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.commands import announced_url, gpo_in_this_process

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig

GOOD = "Read carefully and classify the customer ticket: answer with exactly one category label, a single word only."
JSON, MSGPACK = {"Content-Type": "application/json"}, {"Content-Type": "application/msgpack"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks = [{}, {"name": "desks", "prompt": "Which desk?"}]
    return write_config(tmp_path_factory.mktemp("serve"), endpoint.base_url, tasks=tasks)


@pytest.fixture(scope="module")
def server(gpo: Gpo, config: Path) -> Iterator[httpx2.Client]:
    started = gpo.start("serve", config, "--port", 0, cwd=config.parent)
    with httpx2.Client(base_url=announced_url(started), timeout=60, trust_env=False) as client:
        yield client
    started.interrupt()
    finished = started.finish()
    assert finished.code == 0, finished.stderr


def _evaluate(server: httpx2.Client, **body: Any) -> httpx2.Response:
    return server.post("/v1/evaluate", json=body)


def test_prompts_are_scored_in_the_order_of_the_request(server: httpx2.Client, endpoint: SimulatedEndpoint) -> None:
    before = len(endpoint.requests)
    reply = _evaluate(server, task="triage", prompts=["Think.", GOOD], split="test")
    assert reply.status_code == 200, reply.text
    document = reply.json()
    assert (document["task"], document["split"]) == ("triage", "test")
    assert [score["prompt"] for score in document["scores"]] == ["Think.", GOOD]
    worse, better = document["scores"]
    assert 0 <= worse["mean"] < better["mean"] <= 1
    assert len(better["values"]) == better["usage"]["requests"] == 30
    assert len(endpoint.requests) - before == 2 * 30


def test_the_score_equals_that_of_gpo_evaluate(server: httpx2.Client, config: Path) -> None:
    finished = gpo_in_this_process("evaluate", config, "--prompt", GOOD, "--output", "score.json", cwd=config.parent)
    assert finished.code == 0, finished.stderr
    document = json.loads((config.parent / "score.json").read_text(encoding="utf-8"))
    (score,) = _evaluate(server, task="triage", prompt=GOOD).json()["scores"]
    cost = score.pop("usage")
    assert {name: document[name] for name in score} == score
    assert (document["usage"]["requests"], cost["requests"], cost["cached"]) == (20, 0, 20)


def test_msgpack_and_json_hold_the_same_scores(server: httpx2.Client) -> None:
    body = {"task": "desks", "prompt": GOOD, "split": "val"}
    as_json = server.post("/v1/evaluate", json=body)
    as_msgpack = server.post(
        "/v1/evaluate", content=msgpack.packb(body), headers={**MSGPACK, "Accept": "application/msgpack"}
    )
    assert as_msgpack.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(as_msgpack.content) == as_json.json()


def test_the_server_lists_its_tasks(server: httpx2.Client) -> None:
    sizes = {"train": 24, "val": 20, "test": 30}
    assert server.get("/v1/tasks").json() == {"tasks": {"triage": sizes, "desks": sizes}}


def test_the_server_describes_its_interface(server: httpx2.Client) -> None:
    described = server.get("/openapi.json").json()
    content = described["paths"]["/v1/evaluate"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/msgpack"}
    assert "prompts" in content["application/json"]["schema"]["properties"]
    page = server.get("/docs")
    assert (page.status_code, "text/html" in page.headers["content-type"]) == (200, True)
    assert server.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"task": "nowhere", "prompt": GOOD}, 404, ("nowhere", "desks, triage")),
        ({"task": "triage"}, 422, ("give prompt or prompts",)),
        ({"task": "triage", "prompt": ""}, 422, ("prompt", "at least 1")),
        ({"task": "triage", "prompts": ["Think."] * 65}, 422, ("prompts", "at most 64")),
        ({"task": "triage", "prompt": GOOD, "promt": "x"}, 422, ("promt",)),
        ({"task": "triage", "prompt": GOOD, "split": "dev"}, 422, ("split", "train")),
        ({"prompt": GOOD}, 422, ("task", "required")),
        ([], 422, ()),
    ],
)
def test_an_invalid_request_is_refused(
    body: Any, status: int, words: tuple[str, ...], server: httpx2.Client, endpoint: SimulatedEndpoint
) -> None:
    before = len(endpoint.requests)
    reply = server.post("/v1/evaluate", json=body)
    assert reply.status_code == status, reply.text
    assert not [word for word in words if word not in reply.text], reply.text
    assert len(endpoint.requests) == before


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b'{"task": ', JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"\x82\xa4task", MSGPACK, 400),
        (b"\x81\x01\x02", MSGPACK, 400),
        (b"task=triage", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b'{"task": "triage", "prompt": "' + b"x" * 1_000_000 + b'"}', JSON, 413),
    ],
)
def test_an_unreadable_body_is_refused(
    content: bytes, headers: dict[str, str], status: int, server: httpx2.Client
) -> None:
    reply = server.post("/v1/evaluate", content=content, headers=headers)
    assert reply.status_code == status, reply.text
