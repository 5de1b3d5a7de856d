from __future__ import annotations

from unittest.mock import Mock

import pytest
import ray

from cluster.session import ray_connection
from gpo.errors import ClusterError


def test_a_node_that_takes_its_time_is_waited_for() -> None:
    get_node = Mock(side_effect=[RuntimeError("not there yet"), RuntimeError("not there yet"), "the node"])
    assert ray_connection._patient(get_node)("address", "id") == "the node"


def test_a_node_that_never_comes_is_given_up() -> None:
    get_node = Mock(side_effect=RuntimeError("not there yet"))
    with pytest.raises(RuntimeError, match="not there yet"):
        ray_connection._patient(get_node, within_s=0)("address", "id")


def test_a_cluster_that_does_not_start_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def times_out(*_args: object, **_options: object) -> None:
        raise Exception("The current node timed out during startup. This\ncould happen")

    monkeypatch.setattr(ray, "init", times_out)
    with (
        pytest.raises(ClusterError, match=r"Ray did not start .* timed out during startup\. This\)"),
        ray_connection.ray_connection("local", cpus_needed=1),
    ):
        pass
