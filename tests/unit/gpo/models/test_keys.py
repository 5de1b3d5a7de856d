"""Keys, extra headers and query parameters: what is sent, and that no secret is shown."""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gpo.errors import ConfigError, ModelRefused, RefusalReason
from gpo.models import credentials
from gpo.models.credentials import Header, KeySource
from gpo.models.protocol import Completion, Message, Sampling
from gpo.models.retrying import RetryingModel
from tests.servers import serving
from tests.unit.gpo.models.remote import endpoint_of, remote_model

KEY, OLD, TOKEN = "canary-key-6b1f9e", "canary-old-6b1f9e", "canary token 77aa01"
ASKED: list[Message] = [{"role": "user", "content": "Classify.\nwhere is my parcel"}]


async def complete(asked: RetryingModel) -> Completion:
    async with endpoint_of(asked).client:
        return await asked.complete(ASKED, Sampling())


def answer(text: str = "yes") -> web.Response:
    return web.json_response({"choices": [{"message": {"content": text}}]})


def printing(text: str, before: str = "") -> KeySource:
    """A command that prints a text."""
    return KeySource(command=(sys.executable, "-c", f"{before}\nprint({text!r})"))


async def test_headers_and_parameters_are_sent_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GATEWAY_TOKEN", TOKEN)
    received: list[web.Request] = []

    async def reply(request: web.Request) -> web.Response:
        received.append(request)
        if request.path.endswith("/embeddings"):
            return web.json_response({"data": [{"index": 0, "embedding": [1.0]}]})
        return answer(f"the key is {request.headers['api-key']}, the token {request.headers['X-Token']}")

    async with serving(reply) as url:
        asked = remote_model(
            url,
            key_header="api-key",
            headers=(Header("X-Organization", "acme"), Header("X-Token", env="GATEWAY_TOKEN")),
            query=(("api-version", "2024-06-01"),),
        )
        completion = await asked.complete(ASKED, Sampling())
        await asked.embed_batch(["a parcel"])
        packed, shown = pickle.dumps(asked), repr(asked)
        await endpoint_of(asked).client.close()
    assert completion.text == "the key is ***, the token ***"
    assert len(received) == 2
    for request in received:
        assert dict(request.query) == {"api-version": "2024-06-01"}
        assert not [name for name in request.headers if name.lower().startswith("x-stainless")]
        sent = {name: request.headers.get(name) for name in ("api-key", "X-Organization", "X-Token", "Authorization")}
        assert sent == {"api-key": KEY, "X-Organization": "acme", "X-Token": TOKEN, "Authorization": None}
    assert "canary" not in shown
    assert b"canary" not in packed


@pytest.mark.parametrize(("value", "said"), [("", "GATEWAY_TOKEN is not set"), ("canary\nnext", "does not fit")])
async def test_a_header_without_a_usable_value_is_an_error(
    value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", value)
    with pytest.raises(ConfigError, match=said) as caught:
        await complete(remote_model("http://far.invalid/v1", headers=(Header("X-Token", env="GATEWAY_TOKEN"),)))
    assert caught.value.field == "headers.X-Token"
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("no-such-program",), r"cannot be run \(No such file"),
        ((".",), "cannot be run"),
        ((sys.executable, "-c", "import sys; print('canary'); sys.exit('canary')"), "failed with exit code 1"),
        ((sys.executable, "-c", "pass"), "printed no key"),
        ((sys.executable, "-c", "print('canary one')"), "has characters that no key has"),
        ((sys.executable, "-c", "import os; os.write(1, b'canary\\xff')"), "has characters that no key has"),
        ((sys.executable, "-c", "a\0b"), "NUL"),
    ],
)
def test_a_command_without_a_key_is_an_error_and_its_output_is_not_shown(
    command: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        KeySource(command=command).read()
    assert caught.value.field == "api_key_command"
    assert "canary" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_command_gets_no_shell_and_no_input() -> None:
    assert KeySource(command=("printf", "%s", "$HOME;`id`")).read() == "$HOME;`id`"
    assert printing("no-input", "import sys; assert not sys.stdin.read()").read() == "no-input"


def test_a_command_that_does_not_end_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_COMMAND_TIMEOUT_S", 0.3)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"does not end within 0\.3 s"):
        KeySource(command=("sh", "-c", "sleep 60 & wait")).read()
    assert time.monotonic() - started < 20


async def test_a_command_runs_again_when_its_key_is_refused_once_for_all_requests(tmp_path: Path) -> None:
    runs, script = tmp_path / "runs", tmp_path / "print_key.py"
    script.write_text(
        f"from pathlib import Path\nruns = Path({str(runs)!r})\n"
        "before = runs.read_text() if runs.exists() else ''\nruns.write_text(before + '.')\n"
        f"print({KEY!r} if before else {OLD!r})"
    )
    refused = 0

    async def reply(request: web.Request) -> web.Response:
        nonlocal refused
        if request.headers["Authorization"] == f"Bearer {KEY}":
            return answer(f"not {OLD}, but {KEY}")
        refused += 1
        await asyncio.sleep(0.1)
        return web.json_response({"error": {"message": f"{OLD} has expired"}}, status=401)

    async with serving(reply) as url:
        asked = remote_model(url, key=KeySource(command=(sys.executable, str(script))))
        replies = await asyncio.gather(*(asked.complete(ASKED, Sampling()) for _ in range(8)))
        await endpoint_of(asked).client.close()
    assert {completion.text for completion in replies} == {"not ***, but ***"}
    assert (refused, runs.read_text()) == (8, "..")


async def test_a_command_that_prints_the_refused_key_again_runs_once_more_for_all_requests(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    async def reply(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": f"{KEY} is wrong"}}, status=401)

    async with serving(reply) as url:
        asked = remote_model(url, key=printing(KEY, f"open({str(runs)!r}, 'a').write('.')"))
        outcomes: list[Any] = await asyncio.gather(
            *(asked.complete(ASKED, Sampling()) for _ in range(8)), return_exceptions=True
        )
        await endpoint_of(asked).client.close()
    assert {type(outcome) for outcome in outcomes} == {ModelRefused}
    assert {outcome.reason for outcome in outcomes} == {RefusalReason.KEY}
    assert "canary" not in "".join(map(str, outcomes))
    assert runs.read_text() == ".."
