"""Who gets how many places: weighted max-min fairness in whole numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush


@dataclass(frozen=True, slots=True)
class Want:
    """What one asks for.

    Attributes:
        demand: places it could use.
        weight: how much of a contended whole is its due, ≥ 1.
        group: whose cap it falls under.
        served: what it was given so far in the long run; decides where there is less than one for each.
    """

    demand: int
    weight: int
    group: str
    served: int = 0


def fair_shares(places: int, wants: Sequence[Want], caps: Mapping[str, int]) -> list[int]:
    """Places for each, in order: none beyond its demand, no group beyond its cap, and the rest as even as can be.

    Takes O(places · log wants).
    """
    shares, taken = [0] * len(wants), Counter[str]()
    queue = [(0.0, want.served / want.weight, index) for index, want in enumerate(wants) if want.demand > 0]
    heapify(queue)
    while queue and places > 0:
        _, served, index = heappop(queue)
        want = wants[index]
        if taken[want.group] >= caps[want.group]:
            continue
        shares[index] += 1
        taken[want.group] += 1
        places -= 1
        if shares[index] < want.demand:
            heappush(queue, (shares[index] / want.weight, served, index))
    return shares
