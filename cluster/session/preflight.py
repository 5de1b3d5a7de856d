"""Checks before anything starts or costs money."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import openai

from cluster.config import RunConfig
from cluster.config.models import EmbeddedChatConfig, EndpointConfig
from cluster.session.models import embedded_spec, is_judged
from gpo.errors import ConfigError, GPOError, ModelRefused, RefusalReason
from gpo.text import without_controls

_TIMEOUT_S = 15.0
_MODELS_SHOWN = 8


async def check_models(config: RunConfig, roles: Sequence[str] | None = None) -> None:
    """Check every model: the weights exist; the endpoint answers, accepts the key and has the model.

    No model is called: the check requests the endpoint's list of models. An endpoint without such a list passes; a
    wrong key or model is then reported at the first call, in the same words.

    Args:
        roles: roles of the models to check; ``None`` means all that a run of this configuration calls.

    Raises:
        ConfigError: the first model that fails the check; or a package that the run needs is missing.
    """
    if roles is None:
        config.tracing.require_package()
        config.tracking.require_package()
    named = (_role(config, role) for role in (roles if roles is not None else _roles(config)))
    models = {f"models.{role}": getattr(config.models, role) for role in named}
    for where, model in models.items():
        if isinstance(model, EmbeddedChatConfig):
            embedded_spec(model).check(f"{where}.gguf")
    endpoints = {where: model for where, model in models.items() if isinstance(model, EndpointConfig)}
    findings = await asyncio.gather(*(_check(where, endpoint) for where, endpoint in endpoints.items()))
    for finding in findings:
        if finding is not None:
            raise finding


def _roles(config: RunConfig) -> list[str]:
    return ["task", "optimizer", *(["judge"] if is_judged(config) else []), "embedding"]


def _role(config: RunConfig, role: str) -> str:
    """The role whose section in the configuration names the model."""
    return "optimizer" if role == "judge" and config.models.judge is None else role


async def _check(where: str, endpoint: EndpointConfig) -> ConfigError | None:
    built = replace(endpoint.build(), timeout_s=_TIMEOUT_S)
    try:
        await asyncio.to_thread(built.require_secrets)  # a command may take seconds
    except ConfigError as error:
        return ConfigError(f"{where}.{error.field}", error.problem, error.remedy)
    if not endpoint.check:
        return None
    try:
        client = built.client.with_options(max_retries=1)
    except ConfigError as error:
        return error  # names a variable of the environment, not an option
    url, said = endpoint.base_url, built.redaction
    async with client:
        try:
            listed = [model.id async for model in client.models.list(extra_headers=built.key_headers)]
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            return refused_key(where, endpoint, f"HTTP {error.status_code}")
        except openai.APIStatusError as error:
            if error.status_code >= 500:
                return ConfigError(
                    f"{where}.base_url", f"{url} answers HTTP {error.status_code}", "try again once the endpoint is up"
                )
            return None  # has no list of models
        except openai.APIConnectionError as error:
            reason = said.message(without_controls(str(error.__cause__ or error)))
            return ConfigError(
                f"{where}.base_url", f"{url} cannot be reached ({reason})", "start it, or correct base_url"
            )
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, RecursionError):
            return None  # something else than a list of models
    known = [said.message(without_controls(name)) for name in listed if isinstance(name, str)]
    if known and _plain_name(endpoint.model) not in map(_plain_name, known):
        return unknown_model(where, endpoint, known)
    return None


def _plain_name(model: str) -> str:
    """A model's name without the parts that an endpoint may list and does not need: ``:latest`` and ``models/``."""
    return model.removeprefix("models/").removesuffix(":latest")


def refused_key(where: str, endpoint: EndpointConfig, said: str) -> ConfigError:
    """The error where the endpoint refuses the key."""
    source = endpoint.key
    field = f"{where}.{source.option}"
    problem = f"{endpoint.base_url} refused the key in {source.location} ({said})"
    return ConfigError(field, problem, "set a key that is valid there")


def unknown_model(where: str, endpoint: EndpointConfig, known: list[str]) -> ConfigError:
    """The error where the endpoint does not have the model."""
    shown = ", ".join(sorted(known)[:_MODELS_SHOWN]) + (", …" if len(known) > _MODELS_SHOWN else "")
    choice = f"choose one of: {shown}" if known else "correct the name"
    remedy = f"{choice} (or set check: false, if the endpoint does not list all its models)" if known else choice
    return ConfigError(f"{where}.model", f"{endpoint.model!r} is unknown at {endpoint.base_url}", remedy)


def explained_refusal(config: RunConfig, refusal: ModelRefused) -> GPOError:
    """The refusal of a call, as the error that the check before the run would have raised."""
    for role in ("task", "optimizer", "judge", "embedding"):
        model = getattr(config.models, role)
        if not isinstance(model, EndpointConfig):
            continue
        asked = (model.model, model.base_url, model.key.location)
        if asked == (refusal.model, refusal.base_url, refusal.key_location):
            if refusal.reason is RefusalReason.KEY:
                return refused_key(f"models.{role}", model, str(refusal))
            if refusal.reason is RefusalReason.MODEL:
                return unknown_model(f"models.{role}", model, [])
    return refusal
