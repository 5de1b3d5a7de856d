from __future__ import annotations

import pytest
import ray

from cluster.session.ray_connection import ray_connection


def test_a_request_after_the_cluster_has_ended_starts_no_other() -> None:
    with ray_connection("local", cpus_needed=1):
        assert ray.is_initialized()
    for ask in (ray.nodes, lambda: ray.put(1), lambda: ray.get_actor("exporter")):
        with pytest.raises((ray.exceptions.RaySystemError, ConnectionError, AssertionError)):
            ask()
        assert not ray.is_initialized()
