"""Environment variables that must be set before Ray is imported, which reads them only then."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from cluster.config.secrets import PROBLEM
from gpo.errors import ConfigError

_CONNECT_TIMEOUT_S = 5.0


def resolve_address(address: str | None) -> str:
    """The address of the cluster: as typed, or else ``RAY_ADDRESS`` (set in a submitted job), or else ``local``.

    Raises:
        ConfigError: this command cannot use the address.
    """
    resolved = address or os.environ.get("RAY_ADDRESS") or "local"
    if resolved in ("local", "auto"):
        return resolved
    if "@" in resolved:
        # Not shown: it may contain a password.
        raise ConfigError("--address", PROBLEM, "leave it out; a cluster's token is in RAY_AUTH_TOKEN")
    host, _, port = resolved.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ConfigError(
            "--address",
            f"{resolved!r} is not the address of a Ray cluster that this machine belongs to",
            "use local, auto or HOST:PORT, or run the command as a Ray job on that cluster",
        )
    try:
        # Ray would try for minutes.
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "--address", f"nothing answers at {resolved!r} ({error})", "start a cluster with 'ray start --head' there"
        ) from None
    return resolved


def prepare_environment(address: str) -> None:
    """Protect a local cluster by a token that only this process and its workers know.

    Ray's ports are open on every interface of the machine, so a cluster without a token would run anybody's code. An
    existing cluster, or one with ``RAY_AUTH_MODE`` set, keeps its own setting.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would start a second cluster for a thread that calls it before ``ray.init`` or after ``ray.shutdown``.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if address == "local":
        # A record of every call between processes, for the dashboard alone; it grows by 2 MB a minute.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    if address != "local" or "RAY_AUTH_MODE" in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="gpo-ray-"))  # readable by this user only
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    token = folder / "token"
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
