"""Sockets at addresses that a user names."""

from __future__ import annotations

import socket

from gpo.errors import ConfigError


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket with this address; port 0 takes a free one.

    Raises:
        ConfigError: it cannot be taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        problem = f"{host}:{port} cannot be listened on ({error.strerror or error})"
        raise ConfigError("--port", problem, "choose another, or --port 0") from None
    return listening
