"""The evaluator as an application for ``serve deploy`` and a RayService, without a driver.

Annotations are not postponed here, since Serve reads those of the builder to check its arguments.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from ray import serve as ray_serve

from actors.limiter import LimiterActor
from cluster.config import RunConfig, load_config
from cluster.config.run import BudgetConfig
from cluster.session.models import Access, build_evaluators, build_tasks, embedded_specs
from gpo.errors import ConfigError
from serve.evaluator import Evaluator
from serve.ingress import ingress_app

_TARGET_REQUESTS = 4
_MAX_ONGOING_REQUESTS = 100
_MAX_QUEUED_REQUESTS = 1000
_MAX_REPLICAS = 8
_DRAIN_S = 600.0


class EvaluatorArgs(BaseModel):
    """Arguments of the application, in the section ``args`` of a Serve configuration."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    config: Annotated[str, Field(min_length=1)]
    """Path of a run's configuration, on the node that builds the application."""
    overrides: tuple[str, ...] = ()
    """Overrides as for ``--set``, such as ``models.task.max_concurrency=64``."""
    guarded: bool = True
    """Require the bearer token in GPO_SERVE_TOKEN, which must be set on the nodes, in every request."""


def build(args: EvaluatorArgs) -> ray_serve.Application:
    """The evaluator behind its HTTP interface.

    A Serve configuration can override the options set here for the deployments ``ingress`` and ``evaluator``. The
    configuration's budget is for a run, and does not bound the application.

    Raises:
        ConfigError: the configuration or its data cannot be used, or a model is embedded.
    """
    config = load_config(Path(args.config), args.overrides)
    if embedded_specs(config):
        raise ConfigError(
            "models", "an embedded model needs a driver that serves it", "name an endpoint, or use gpo serve"
        )
    return ingress_app(_scaling(config), guarded=args.guarded)


def _scaling(config: RunConfig) -> ray_serve.Application:
    config = config.model_copy(update={"budget": BudgetConfig()})
    evaluators = build_evaluators(config, build_tasks(config), Access({}, LimiterActor(), budget_name="gpo-evaluator"))
    deployment = Evaluator.options(
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": _MAX_REPLICAS,
            "target_ongoing_requests": _TARGET_REQUESTS,
        },
        max_ongoing_requests=_MAX_ONGOING_REQUESTS,
        max_queued_requests=_MAX_QUEUED_REQUESTS,
        graceful_shutdown_timeout_s=_DRAIN_S,
        ray_actor_options={"num_cpus": config.cluster.evaluator_cpus},
    )
    application: ray_serve.Application = deployment.bind(evaluators, config.examples_at_once)
    return application
