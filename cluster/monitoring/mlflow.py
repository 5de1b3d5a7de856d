"""Writes runs and trials to an experiment in MLflow, from a thread."""

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
from gpo.text import first_line

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_LAST_WRITE_S = 60.0
_MOST_METRICS, _MOST_PARAMS = 1000, 100
_LONGEST_PARAM = 500
_ENDED = ("FINISHED", "KILLED", "FAILED")
_ENVIRONMENT = {
    # Contact only the configured server.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The default of 7 attempts of 120 s each would delay the end of a run.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

Point = tuple[str, float, int]
"""Name, value and step of a metric."""


@dataclass(slots=True)
class MlflowRun:
    """A run in MLflow.

    Attributes:
        next_step: the first step that is not written yet.
        is_over: it had ended before, and was not reopened.
    """

    run_id: str
    next_step: int = 0
    is_over: bool = False


class MlflowStore:
    """An experiment, which is created if it is missing. Use it from one thread.

    If the server cannot be reached, all methods raise whatever MLflow raises.
    """

    def __init__(self, config: MlflowConfig) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Takes seconds to import.
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        self._client = MlflowClient(config.uri)
        found = self._client.get_experiment_by_name(config.experiment)
        self._experiment = (
            found.experiment_id
            if found is not None
            else self._client.create_experiment(config.experiment, artifact_location=_beside(config.uri))
        )

    def run(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: MlflowRun | None = None,
        steps_of: str = "",
        *,
        reopen: bool = True,
    ) -> MlflowRun:
        """The run with these tags, which identify it; created if there is none.

        Args:
            parent: the run that it is nested in.
            steps_of: the metric whose last step is the last one written.
            reopen: whether a run that has ended is reopened.
        """
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        found = self._client.search_runs([self._experiment], wanted, max_results=1)
        if not found:
            nested = {"mlflow.parentRunId": parent.run_id} if parent is not None else {}
            run = self._client.create_run(self._experiment, run_name=name, tags={**tags, **nested})
            self._write_params(run.info.run_id, params)
            return MlflowRun(run.info.run_id)
        info, known = found[0].info, found[0].data.params
        if info.status in _ENDED:
            if not reopen:
                return MlflowRun(info.run_id, is_over=True)
            self._client.update_run(info.run_id, status="RUNNING")
        # The process that created it may have died before it wrote them.
        self._write_params(info.run_id, {param: value for param, value in params.items() if param not in known})
        history = self._client.get_metric_history(info.run_id, steps_of) if steps_of else []
        return MlflowRun(info.run_id, max((point.step + 1 for point in history), default=0))

    def write(self, run: MlflowRun, points: Iterable[Point], at: datetime | None = None) -> None:
        """Add points, except NaN and infinity. Consecutive points of one step are written together.

        Args:
            at: time of the points; now by default. Writing a point of the same time again changes nothing.
        """
        from mlflow.entities import Metric

        at_ms = round((time.time() if at is None else at.timestamp()) * 1000)
        metrics = [Metric(name, value, at_ms, step) for name, value, step in points if math.isfinite(value)]
        batch: list[Metric] = []
        for _, together in groupby(metrics, key=lambda metric: metric.step):
            of_step = list(together)  # written whole or not at all
            if batch and len(batch) + len(of_step) > _MOST_METRICS:
                self._client.log_batch(run.run_id, metrics=batch)
                batch = []
            batch += of_step
        if batch:
            self._client.log_batch(run.run_id, metrics=batch)

    def keep(self, run: MlflowRun, name: str, content: bytes) -> None:
        """Store a text file with a run."""
        self._client.log_text(run.run_id, content.decode(), name)

    def register(self, name: str, text: str, tags: Mapping[str, str], alias: str | None) -> None:
        """Register a prompt as a new version; a version with the same text and tags is used again.

        Args:
            name: of the prompt in the registry; created if it does not exist.
            alias: that the version gets; ``None`` for none.
        """
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        found = self._client.search_model_versions(
            f"name = '{name}' and tags.`mlflow.prompt.is_prompt` = 'true' and {wanted}"
        )
        known = [one for one in found if one.tags.get("mlflow.prompt.text") == text]
        version = known[0] if known else self._client.register_prompt(name, text, tags=dict(tags))
        if alias is not None:
            self._client.set_prompt_alias(name, alias, int(version.version))

    def end(self, run: MlflowRun, status: str) -> None:
        """End a run with a status: ``FINISHED``, ``KILLED`` or ``FAILED``."""
        self._client.set_terminated(run.run_id, status)

    def _write_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in params.items()]
        for begin in range(0, len(rows), _MOST_PARAMS):
            self._client.log_batch(run_id, params=rows[begin : begin + _MOST_PARAMS])


def _beside(uri: str) -> str | None:
    """The folder for artifacts: next to a database; ``None`` for a server, which decides itself."""
    parts = urlsplit(uri)
    if parts.scheme != "sqlite":
        return None
    return Path(parts.path[1:]).with_suffix(".artifacts").as_uri()


class Writer:
    """A context in which a thread writes new results every few seconds, and the rest at the end.

    A server that is slow or away delays nothing, except for up to a minute at the end. What could not be written is
    written later, or when the run is resumed.

    Args:
        write: brings the store up to date; its second argument says whether it is the last time.
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
        self._thread.join(_LAST_WRITE_S)
        if self._thread.is_alive():
            log.warning("MLflow at %s takes too long; the folder of the run holds the rest", self._config.uri)

    def _work(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._try(is_last=False)
        self._try(is_last=True)

    def _try(self, *, is_last: bool) -> None:
        try:
            self._store = self._store or MlflowStore(self._config)
            self._write(self._store, is_last)
            self._was_lost = False
        except Exception as error:  # a problem of MLflow never ends a run
            if is_last or not self._was_lost:
                log.warning("writing to MLflow at %s failed: %s", self._config.uri, first_line(error))
            self._was_lost = True
