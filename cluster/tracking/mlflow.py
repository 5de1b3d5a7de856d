"""An experiment in MLflow, as far as runs and trials are written to it; and the thread that writes."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from cluster.config.observability import MlflowConfig

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_FAREWELL_S = 60.0
_MOST_METRICS, _MOST_PARAMS = 1000, 100
_LONGEST_PARAM = 500
_ENDED = ("FINISHED", "KILLED", "FAILED")
_ENVIRONMENT = {
    # Nobody is told but the server that was named.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The package's own 7 tries of 120 s each would hold up the end of a run.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

Point = tuple[str, float, int]
"""A metric's name, its value, and the step that it belongs to."""


@dataclass(slots=True)
class Page:
    """A run in MLflow.

    Attributes:
        next_step: the first one of which nothing is written.
        is_over: it was ended before, and not opened again.
    """

    run_id: str
    next_step: int = 0
    is_over: bool = False


class MlflowStore:
    """An experiment, which is made where it is missing. To be used from one thread.

    All methods raise whatever the package raises where the store is out of reach.
    """

    def __init__(self, config: MlflowConfig) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Takes seconds to load.
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        self._client = MlflowClient(config.uri)
        found = self._client.get_experiment_by_name(config.experiment)
        self._experiment = (
            found.experiment_id
            if found is not None
            else self._client.create_experiment(config.experiment, artifact_location=_beside(config.uri))
        )

    def page(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        of: Page | None = None,
        steps_of: str = "",
        *,
        goes_on: bool = True,
    ) -> Page:
        """The run with these tags, which tell it from all others; made where there is none.

        Args:
            of: the run that it is a part of.
            steps_of: the metric that says how far it was written.
            goes_on: whether it is opened again if it was ended.
        """
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        found = self._client.search_runs([self._experiment], wanted, max_results=1)
        if not found:
            parent = {"mlflow.parentRunId": of.run_id} if of is not None else {}
            run = self._client.create_run(self._experiment, run_name=name, tags={**tags, **parent})
            self._write_params(run.info.run_id, params)
            return Page(run.info.run_id)
        info, known = found[0].info, found[0].data.params
        if info.status in _ENDED:
            if not goes_on:
                return Page(info.run_id, is_over=True)
            self._client.update_run(info.run_id, status="RUNNING")
        # Who made it may have been cut off before they were written.
        self._write_params(info.run_id, {param: value for param, value in params.items() if param not in known})
        history = self._client.get_metric_history(info.run_id, steps_of) if steps_of else []
        return Page(info.run_id, max((point.step + 1 for point in history), default=0))

    def write(self, page: Page, points: Iterable[Point], at: datetime | None = None) -> None:
        """Add points; those that are no numbers are left out. What follows each other of one step is written at once.

        Args:
            at: when they became known, now by default. Points that are there already, of the same time, change nothing.
        """
        from mlflow.entities import Metric

        at_ms = round((time.time() if at is None else at.timestamp()) * 1000)
        metrics = [Metric(name, value, at_ms, step) for name, value, step in points if math.isfinite(value)]
        batch: list[Metric] = []
        for _, together in groupby(metrics, key=lambda metric: metric.step):
            of_step = list(together)  # is written whole or not at all
            if batch and len(batch) + len(of_step) > _MOST_METRICS:
                self._client.log_batch(page.run_id, metrics=batch)
                batch = []
            batch += of_step
        if batch:
            self._client.log_batch(page.run_id, metrics=batch)

    def keep(self, page: Page, name: str, content: bytes) -> None:
        """Keep a text file."""
        self._client.log_text(page.run_id, content.decode(), name)

    def end(self, page: Page, status: str) -> None:
        """Say how it ended: ``FINISHED``, ``KILLED`` or ``FAILED``."""
        self._client.set_terminated(page.run_id, status)

    def _write_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in params.items()]
        for begin in range(0, len(rows), _MOST_PARAMS):
            self._client.log_batch(run_id, params=rows[begin : begin + _MOST_PARAMS])


def _beside(uri: str) -> str | None:
    """Where files are kept: a server knows; a database has them in a folder beside it, not in the working directory."""
    parts = urlsplit(uri)
    if parts.scheme != "sqlite":
        return None
    return Path(parts.path[1:]).with_suffix(".artifacts").as_uri()


class Writer:
    """A context in which a thread writes what is new, every few seconds, and all of it at the end.

    A store that is slow or away holds nobody up, but for a minute at the end. What it did not get is written later, or
    when the run is resumed.

    Args:
        write: brings the store up to date; told whether it is for the last time.
    """

    def __init__(self, config: MlflowConfig, write: Callable[[MlflowStore, bool], None]) -> None:
        self._config, self._write = config, write
        self._store: MlflowStore | None = None
        self._over = Event()
        self._was_lost = False
        self._thread = Thread(target=self._work, name="mlflow", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(_FAREWELL_S)
        if self._thread.is_alive():
            log.warning("MLflow at %s takes too long; what it did not get is in the run's folder", self._config.uri)

    def _work(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._try(is_last=False)
        self._try(is_last=True)

    def _try(self, *, is_last: bool) -> None:
        try:
            self._store = self._store or MlflowStore(self._config)
            self._write(self._store, is_last)
            self._was_lost = False
        except Exception as error:  # of whatever store: it is no reason to end a run
            if is_last or not self._was_lost:
                said = (str(error).strip() or type(error).__name__).splitlines()[0]
                log.warning("MLflow at %s was not told: %s", self._config.uri, said)
            self._was_lost = True
