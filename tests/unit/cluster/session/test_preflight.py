"""The check before a run, against endpoints that answer unexpectedly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yaml
from aiohttp import web

from cluster.config import RunConfig
from cluster.config.loading import validate
from cluster.session.preflight import check_models
from gpo.errors import ConfigError
from tests.paths import ROOT

KEY = "sk-canary-5d1f0b\"'/"
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@asynccontextmanager
async def listing(body: bytes, status: int = 200, received: list[web.Request] | None = None) -> AsyncIterator[str]:
    """The base URL of an endpoint with this list of models; appends its requests to ``received``."""

    async def reply(request: web.Request) -> web.Response:
        if received is not None:
            received.append(request)
        return web.Response(body=body, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", reply)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def config(base_url: str, **settings: Any) -> RunConfig:
    raw = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    raw["models"] = {role: {"base_url": base_url, "model": "m", **settings} for role in ("task", "optimizer")}
    return validate(raw, QUICKSTART.parent)


@pytest.mark.parametrize("data", [[{"id": KEY}], [{"id": f"a {KEY}\x1b[31m"}, {"id": 3}, {"id": None}]])
async def test_listed_model_names_are_redacted_and_without_control_characters(data: Any) -> None:
    async with listing(json.dumps({"data": data}).encode()) as url:
        with pytest.raises(ConfigError, match="'m' is unknown") as caught:
            await check_models(config(url))
    assert "canary" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "***" in caught.value.remedy


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"3", b'{"data": 3}', b'{"data": [3]}', b'{"data": [{}]}', b'{"data": null}', b"[" * 9999],
)
async def test_a_reply_without_a_list_of_models_passes(body: bytes) -> None:
    async with listing(body) as url:
        await check_models(config(url))


async def test_an_endless_list_is_not_read() -> None:
    async with listing(b" " * 20_000_000) as url:
        with pytest.raises(ConfigError, match="larger than 8 MB"):
            await check_models(config(url))


@pytest.mark.parametrize("status", [401, 500])
async def test_text_from_the_endpoint_is_not_repeated(status: int) -> None:
    async with listing(json.dumps({"error": {"message": KEY}}).encode(), status) as url:
        with pytest.raises(ConfigError) as caught:
            await check_models(config(url))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "configured"),
    [("m:latest", "m"), ("m", "m:latest"), ("models/m", "m"), ("m", "models/m"), ("models/m:latest", "m")],
)
async def test_a_name_matches_with_and_without_latest_and_models(listed: str, configured: str) -> None:
    async with listing(json.dumps({"data": [{"id": listed}]}).encode()) as url:
        await check_models(config(url, model=configured))
        with pytest.raises(ConfigError, match="is unknown"):
            await check_models(config(url, model=f"{configured}:8b"))


async def test_the_check_sends_the_configured_headers_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "canary-token")
    received: list[web.Request] = []
    async with listing(b'{"data": [{"id": "m"}]}', received=received) as url:
        await check_models(
            config(
                url,
                api_key_command=["printf", "%s", "of-the-command"],
                api_key_header="api-key",
                headers={"X-Organization": "acme", "X-Tag": {"env": "GATEWAY_TOKEN"}},
                query={"api-version": "2024-06-01"},
            )
        )
    for request in received:
        sent = {name: request.headers.get(name) for name in ("api-key", "X-Organization", "X-Tag", "Authorization")}
        assert sent == {
            "api-key": "of-the-command", "X-Organization": "acme", "X-Tag": "canary-token", "Authorization": None,
        }  # fmt: skip
        assert dict(request.query) == {"api-version": "2024-06-01"}
    assert received


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"api_key_command": ["no-such-program"]}, "models.task.api_key_command"),
        ({"headers": {"X-Tag": {"env": "NOT_SET"}}}, "models.task.headers.X-Tag"),
    ],
)
async def test_a_secret_that_cannot_be_read_names_its_option(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await check_models(config("http://127.0.0.1:9/v1", **settings))
    assert caught.value.field == field


async def test_an_unusable_proxy_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:1080")
    with pytest.raises(ConfigError) as caught:
        await check_models(config("http://far.invalid/v1"))
    assert caught.value.field == "ALL_PROXY"
