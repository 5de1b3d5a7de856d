"""What a trial costs, as an objective: other than what it was charged, it does not depend on the trials before it."""

from __future__ import annotations

from collections.abc import Iterable

from gpo.models import Usage


def cost(usages: Iterable[Usage]) -> tuple[float, float]:
    """Tokens and dollars as if no completion had been cached before.

    A call that the cache answered counts with what it took when it was made. Else whoever comes first would pay for the
    initial prompts, and a setting that was tried before would be free.

    Args:
        usages: one for each role.
    """
    tokens = usd = 0.0
    for usage in usages:
        tokens += usage.prompt_tokens + usage.completion_tokens + usage.cached_tokens
        usd += usage.cost_usd + usage.cached_usd
    return tokens, usd
