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
async def listing(body: bytes, status: int = 200) -> AsyncIterator[str]:
    """The base URL of an endpoint with this list of models."""

    async def reply(_: web.Request) -> web.Response:
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


def config(base_url: str) -> RunConfig:
    raw = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    raw["models"] = {role: {"base_url": base_url, "model": "m"} for role in ("task", "optimizer")}
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
