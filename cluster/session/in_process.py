"""What a run works with in this process alone: no Ray, and no other process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.checkpoints import CheckpointStore
from actors.in_process import run_in_process
from actors.search import Search, Update
from cluster.config import RunConfig
from cluster.display.progress import View
from cluster.results.run_record import RunRecord
from cluster.session.models import Access, EmbeddedUrls, RefusedParameters, build_evaluators, embedded_specs
from gpo.data.task import Task
from gpo.errors import ConfigError
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.limits.limiter import Limiter, LocalLimiter
from serve.embedded_model import EmbeddedModelServer, EmbeddedModelSpec, free_port

_servers: dict[EmbeddedModelSpec, EmbeddedModelServer] = {}
"""The embedded models that this process serves; each until the process ends."""


@dataclass(frozen=True, slots=True)
class LocalServices:
    """Evaluators and models in this process, for one event loop."""

    evaluators: Mapping[str, LocalEvaluator]
    access: Access

    def run(
        self, config: RunConfig, searches: Sequence[Search], store: CheckpointStore, pool: Any = None
    ) -> AsyncGenerator[Update]:
        """Run searches in this process; see ``actors.in_process.run_in_process``."""
        return run_in_process(searches, store)

    def counted_view(self, view: View, config: RunConfig, record: RunRecord) -> View:
        """The view; nothing is counted for Prometheus."""
        return view


async def local_services(
    config: RunConfig,
    tasks: Sequence[Task],
    view: View,
    *,
    budget_name: str,
    refused: RefusedParameters,
    limiter: Limiter | None = None,
    urls: EmbeddedUrls | None = None,
) -> LocalServices:
    """Start the embedded models, if there are any, and build the evaluators.

    Args:
        view: shows what this waits for.
        budget_name: the budget that pays for the calls; unique in the limiter.
        refused: parameters that are known to be refused.
        limiter: grants slots and permits; ``None`` is one for this run alone.
        urls: addresses of the embedded models, if others serve them.

    Raises:
        ConfigError: an embedded model cannot be served.
    """
    if urls is None:
        specs = embedded_specs(config)
        if any(spec not in _servers for spec in specs):
            view.status("Starting the embedded model")
        urls = await asyncio.to_thread(embedded_urls, specs)
    access = Access(urls, limiter or LocalLimiter(), budget_name=budget_name, refused=refused)
    evaluators = build_evaluators(config, tasks, access)
    return LocalServices({task.name: one for task, one in zip(tasks, evaluators, strict=True)}, access)


def embedded_urls(specs: Iterable[EmbeddedModelSpec]) -> EmbeddedUrls:
    """Serve embedded models in this process, unless it does so already; the address of each."""
    for spec in dict.fromkeys(specs):
        if spec not in _servers:
            _servers[spec] = EmbeddedModelServer(spec, free_port())
    return {spec: _servers[spec].base_url() for spec in specs}


def require_no_metrics(config: RunConfig) -> None:
    """Check that nothing is to be counted for Prometheus.

    Raises:
        ConfigError: it is.
    """
    if config.metrics.is_on:
        raise ConfigError(
            "metrics",
            "are counted in runs on Ray only",
            "leave the section out and use on_event, or start the run with cluster.launch or gpo run",
        )
