"""What a trial costs, as an objective: other than what it was charged, it does not depend on the trials before it."""

from __future__ import annotations

from collections.abc import Iterable

from gpo.models import Usage


def cost(usages: Iterable[Usage]) -> tuple[float, float]:
    """Tokens and dollars as if no completion had been cached before.

    A call that the cache answered is reckoned at the mean of those to the same model that the endpoint answered; where
    it answered none, at nothing. Else whoever comes first would pay for the initial prompts, and a setting that was
    tried before would be free.

    Args:
        usages: one for each role.
    """
    tokens = usd = 0.0
    for usage in usages:
        if usage.requests:
            times = (usage.requests + usage.cached) / usage.requests
            tokens += times * (usage.prompt_tokens + usage.completion_tokens)
            usd += times * usage.cost_usd
    return tokens, usd
