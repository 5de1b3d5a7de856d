from __future__ import annotations

from cluster.sweep.trial import cost
from gpo.models.protocol import Usage


def test_cached_calls_cost_as_much_as_original_ones() -> None:
    paid = Usage(requests=40, prompt_tokens=300, completion_tokens=100, cost_usd=0.5)
    partly = Usage(
        requests=10,
        cached=30,
        prompt_tokens=75,
        completion_tokens=25,
        cost_usd=0.125,
        cached_tokens=300,
        cached_usd=0.375,
    )
    wholly = Usage(cached=40, cached_tokens=400, cached_usd=0.5)
    assert cost([paid]) == cost([partly]) == cost([wholly]) == (400.0, 0.5)


def test_costs_are_summed_over_roles() -> None:
    task = Usage(requests=1, cached=1, prompt_tokens=10, cost_usd=0.25, cached_tokens=10, cached_usd=0.25)
    optimizer = Usage(requests=2, prompt_tokens=500, completion_tokens=500, cost_usd=1.0)
    assert cost([task, optimizer, Usage()]) == (1020.0, 1.5)
