"""Environment variables that must be set before Ray is imported, which reads them only then."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import socket
import tempfile
from pathlib import Path

from cluster.config.secrets import PROBLEM
from gpo.errors import ConfigError
from gpo.runtime.temporary import PrivateFolder

log = logging.getLogger(__name__)

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

    Raises:
        ConfigError: no folder for temporary files can be used.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would start a second cluster for a thread that calls it before ``ray.init`` or after ``ray.shutdown``.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    # Under ``uv run``, Ray would copy the working folder, with ``.env`` and all, to every worker.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    if address == "local":
        # A record of every call between processes, for the dashboard alone; it grows by 2 MB a minute.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        # Ray's own metrics, which nothing scrapes here.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        # Each round of Serve's controller asks Ray what the nodes have. Ten in a second would be a fifth of what a run
        # costs beside its calls; a dead replica is noticed by its health check, every two seconds.
        os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.3")
        _choose_folder()
    if address != "local" or "RAY_AUTH_MODE" in os.environ:
        return
    try:
        folder = PrivateFolder("gpo-ray-")
    except OSError as error:
        raise ConfigError("TMPDIR", f"no temporary file can be made ({error.strerror})", _REMEDY) from None
    atexit.register(folder.remove)
    token = folder.path / "token"
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    _tokens.add(str(token))


def is_private() -> bool:
    """Whether only this process and its workers know the token of a local cluster."""
    return os.environ.get("RAY_AUTH_TOKEN_PATH") in _tokens


_tokens = set[str]()
"""The files with the tokens that this process has made."""
_LONGEST_SOCKET_PATH = 107
_RAY_SOCKET = "ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_REMEDY = "set TMPDIR to a short path that this user can write, such as /tmp"


def _choose_folder() -> None:
    """Let Ray use another folder than ``TMPDIR`` where that one is unusable: Unix limits the paths of sockets.

    Raises:
        ConfigError: ``RAY_TMPDIR`` is unusable, or every folder is.
    """
    named = os.environ.get("RAY_TMPDIR")
    if named is not None:
        if problem := _problem_of(named):
            raise ConfigError("RAY_TMPDIR", f"{named!r} {problem}", _REMEDY.replace("TMPDIR", "RAY_TMPDIR"))
        return
    usual = os.environ.get("TMPDIR", "/tmp")  # noqa: S108  # as Ray chooses
    problem = _problem_of(usual)
    for folder in ("/tmp", "/dev/shm") if problem else ():  # noqa: S108  # Ray makes a folder for each session
        if not _problem_of(folder):
            os.environ["RAY_TMPDIR"] = folder
            log.info("Ray uses %s, since TMPDIR=%s %s", folder, usual, problem)
            return
    if problem:
        raise ConfigError("TMPDIR", f"{usual!r} {problem}", _REMEDY)


def _problem_of(folder: str) -> str:
    """Why Ray cannot put its files into a folder; empty if it can."""
    too_long = len(os.fsencode(Path(folder) / _RAY_SOCKET)) - _LONGEST_SOCKET_PATH
    if too_long > 0:
        return f"is {too_long} bytes too long for Ray's sockets"
    if not Path(folder).is_absolute():
        return "is not an absolute path"
    try:
        path = Path(folder) / "ray"
        # Ray makes the missing folders; a run that is refused before Ray starts leaves none behind.
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        tempfile.TemporaryFile(dir=existing).close()
    except (OSError, ValueError) as error:
        return f"cannot be written ({getattr(error, 'strerror', None) or error})"
    return ""
