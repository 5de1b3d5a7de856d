"""``gpo gateway`` as a process, on the simulated endpoint over HTTP; no Ray."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.commands import Gpo, RunGpo, Started, gpo_in_this_process
from tests.configs import WriteConfig


@pytest.fixture
def gpo() -> Iterator[Gpo]:
    commands = Gpo()
    yield commands
    commands.end()


@pytest.fixture
def refused_gpo() -> RunGpo:
    return gpo_in_this_process


def announced(server: Started) -> tuple[str, str]:
    """The URL and the key that the command prints."""
    assert server.process.stderr is not None
    printed = ""
    for line in server.process.stderr:
        printed += line
        if found := re.search(r"OPENAI_BASE_URL=(\S+) OPENAI_API_KEY=(\S+)", line):
            return found[1], found[2]
    raise AssertionError(printed)


def test_clients_share_limits_cache_and_budget(
    gpo: Gpo, write_config: WriteConfig, endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    config = write_config(tmp_path, endpoint.base_url, budget={"calls": 2})
    server = gpo.start("gateway", config, "--port", 0, cwd=tmp_path)
    url, key = announced(server)

    def ask(text: str) -> str:
        with openai.OpenAI(base_url=url, api_key=key) as client:
            messages = [{"role": "user", "content": text}]
            reply = client.chat.completions.create(model="task", messages=messages, temperature=0)  # type: ignore[arg-type]
            return reply.choices[0].message.content or ""

    assert ask("Who?") == ask("Who?")
    ask("Why?")
    with pytest.raises(openai.APIStatusError, match="budget") as failure:
        ask("When?")
    assert failure.value.status_code == 402
    assert len(endpoint.requests) == 2
    with pytest.raises(openai.AuthenticationError), openai.OpenAI(base_url=url, api_key="other") as client:
        client.models.list()

    server.interrupt()
    finished = server.finish()
    assert finished.code == 0
    assert "2 calls (1 more were cached)" in finished.stderr


@pytest.mark.parametrize(
    ("options", "token", "words"),
    [
        (["--host", "0.0.0.0"], "", ["--host", "export GPO_GATEWAY_TOKEN="]),  # noqa: S104
        ([], "with.a.dot", ["GPO_GATEWAY_TOKEN"]),
        (["--host", "192.0.2.1"], "token", ["--port", "192.0.2.1"]),
    ],
)
def test_refusals(
    options: list[str], token: str, words: list[str], refused_gpo: RunGpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9/v1")
    finished = refused_gpo("gateway", config, *options, cwd=tmp_path, env={"GPO_GATEWAY_TOKEN": token})
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert not [word for word in words if word not in line], line
    assert "with.a.dot" not in line
