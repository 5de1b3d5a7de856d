"""``gpo gateway``: the models of a configuration over HTTP, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextvars import copy_context

from rich.console import Console

from cluster.config import RunConfig
from cluster.evaluating.evaluate import shown_cost
from cluster.results.run_record import RunRecord
from cluster.session.budget import BudgetTracker
from cluster.session.in_process import embedded_urls
from cluster.session.interrupts import run_interruptibly
from cluster.session.models import Access, embedded_specs, program_models
from gpo.errors import ConfigError
from gpo.evaluation.gateway import Gateway
from gpo.evaluation.program_calls import Caller, Totals
from gpo.limits.limiter import LocalLimiter
from gpo.models.credentials import fits_header
from gpo.sockets import bound_socket
from serve.http_limits import is_loopback

TOKEN_VARIABLE = "GPO_GATEWAY_TOKEN"  # noqa: S105  # a name, not a token
"""Environment variable with the token; on loopback, a random one replaces it."""


def serve_models(config: RunConfig, host: str, port: int, console: Console) -> None:
    """Serve until SIGINT or SIGTERM; then print what the calls cost.

    Raises:
        ConfigError: a token is required but not set or cannot be one, or the address is taken.
    """
    import gpo.models.client  # noqa: F401  # now rather than during the first call

    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and not is_loopback(host):
        raise ConfigError("--host", f"others can reach {host!r}, but no token is set", f"export {TOKEN_VARIABLE}=…")
    if "." in token or " " in token or not fits_header(token):
        problem = "has a dot, a space or a character that is not ASCII"
        raise ConfigError(TOKEN_VARIABLE, problem, "use other characters")
    listening = bound_socket(host, port)
    with console.status("Starting the embedded model …"):
        urls = embedded_urls(embedded_specs(config))
    access = Access(urls, LocalLimiter(), budget_name="gateway")
    totals = Totals({})

    async def served() -> None:
        await BudgetTracker(config.budget, access, RunRecord("gateway", started_at=time.time())).open()
        caller = Caller(program_models(config, access), totals, asyncio.get_running_loop(), copy_context())
        gateway = Gateway(token or secrets.token_urlsafe(32), lambda _: caller, listening)
        gateway.start()
        key = f"${TOKEN_VARIABLE}" if token else gateway.key()
        console.print(
            f"Serving the models {', '.join(caller.models)}. Ctrl-C ends it. For clients:\n"
            f"export OPENAI_BASE_URL={gateway.url} OPENAI_API_KEY={key}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        await asyncio.Event().wait()

    try:
        run_interruptibly(served())
    except KeyboardInterrupt:
        console.print(shown_cost(totals.usage), highlight=False, soft_wrap=True)
