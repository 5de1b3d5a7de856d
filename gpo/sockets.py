"""Sockets at addresses that a user names."""

from __future__ import annotations

import socket

from gpo.errors import ConfigError


def bound_socket(host: str, port: int, *, remedy: str = "choose another, or --port 0") -> socket.socket:
    """A socket with this address; port 0 takes a free one. If a name stands for several addresses, IPv4 comes first.

    Args:
        remedy: what the user can do if it cannot be taken.

    Raises:
        ConfigError: it cannot be taken.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = min(addresses, key=lambda one: one[0] != socket.AF_INET)
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except (OSError, OverflowError):
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        problem = f"{host}:{port} cannot be listened on ({getattr(error, 'strerror', None) or error})"
        raise ConfigError("--port", problem, remedy) from None
    return listening
