from __future__ import annotations

import pytest

from gpo.errors import ConfigError
from gpo.sockets import bound_socket


@pytest.mark.parametrize(("host", "port"), [("a..b", 0), ("x" * 64 + ".example", 0), ("127.0.0.1", 1 << 70)])
def test_an_address_that_cannot_be_is_an_error_with_its_reason(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match=f"{port} cannot be listened on"):
        bound_socket(host, port)
