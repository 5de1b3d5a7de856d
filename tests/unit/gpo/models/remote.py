"""Models behind an endpoint, and servers that imitate one."""

from __future__ import annotations

from typing import Any

from gpo.models.endpoint import Endpoint
from gpo.models.limited import LimitedModel
from gpo.models.openai import OpenAIModel, openai_model
from gpo.models.retrying import RetryingModel, RetryPolicy

_POLICY = ("max_attempts", "patience_s", "max_backoff_s")


def remote_model(
    base_url: str, name: str = "task-model", completion_limit: str = "max_tokens", **settings: Any
) -> RetryingModel:
    """The model behind an endpoint; ``settings`` are those of ``Endpoint`` and ``RetryPolicy``."""
    policy = {setting: settings.pop(setting) for setting in _POLICY if setting in settings}
    return openai_model(Endpoint(base_url, name, **settings), None, RetryPolicy(**policy), completion_limit)


def endpoint_of(model: RetryingModel) -> Endpoint:
    """The endpoint of a model that ``openai_model`` made."""
    assert isinstance(model.model, LimitedModel)
    assert isinstance(model.model.model, OpenAIModel)
    return model.model.model.endpoint
