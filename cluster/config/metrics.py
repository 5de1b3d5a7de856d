"""Section ``metrics``: Prometheus metrics of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cluster.config.addresses import HttpAddress
from cluster.config.section import Section


class MetricsConfig(Section):
    """Where a Prometheus finds the run's metrics. Nothing is counted or listens unless a port or a gateway is given."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port at which one exporter on the head node answers scrapes, for all runs on a cluster that name this port; a run
    that starts Ray itself answers in its own process, at a loopback host. 0 takes a free one, which ``gpo monitor``
    finds."""
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]+$")] = "127.0.0.1"
    """Address to listen at. Beyond loopback, everybody who reaches it can read names of tasks and models, scores and
    cost: there is no password."""
    linger_s: Annotated[float, Field(ge=0)] = 20.0
    """Seconds that a run waits, at the most, for a scrape that sees its last values: more than the scraper's interval.
    Only with a port; a run that is interrupted does not wait."""
    pushgateway: HttpAddress | None = None
    """Address of a Prometheus Pushgateway, such as ``http://HOST:9091``, where the last values are left at the end of
    the run, for runs that are shorter than a scraper's interval."""

    @property
    def is_on(self) -> bool:
        """Whether anything is counted at all."""
        return self.port is not None or self.pushgateway is not None
