"""Models behind an endpoint, and servers that imitate one."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from gpo.models.endpoint import Endpoint
from gpo.models.limited import LimitedModel
from gpo.models.openai import OpenAIModel, openai_model
from gpo.models.retrying import RetryingModel, RetryPolicy

_POLICY = ("max_attempts", "patience_s", "max_backoff_s")


def remote_model(
    base_url: str, name: str = "task-model", completion_limit: str = "max_tokens", **settings: Any
) -> RetryingModel:
    """The model behind an endpoint; ``settings`` are those of ``Endpoint`` and ``RetryPolicy``."""
    policy = {setting: settings.pop(setting) for setting in _POLICY if setting in settings}
    return openai_model(Endpoint(base_url, name, **settings), None, RetryPolicy(**policy), completion_limit)


def endpoint_of(model: RetryingModel) -> Endpoint:
    """The endpoint of a model that ``openai_model`` made."""
    assert isinstance(model.model, LimitedModel)
    assert isinstance(model.model.model, OpenAIModel)
    return model.model.model.endpoint


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[str]:
    """The base URL of a server with this handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, **settings)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
