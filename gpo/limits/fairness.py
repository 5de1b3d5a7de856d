"""Fairness: a queue whose owners take turns, and fair shares of slots."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

_T = TypeVar("_T")


class FairQueue(Generic[_T]):
    """First in, first out for each owner; the owners take turns. All operations take O(1).

    A turn serves several items. With turns of one item, all owners that start together would also finish together:
    trajectories would all propose at the same time, and the endpoint of the task model would be idle meanwhile.

    Attributes:
        turn: total cost of the items in an owner's turn; each turn serves at least one item.
    """

    def __init__(self, turn: float = 1) -> None:
        self.turn = turn
        self._of: dict[str, deque[tuple[_T, float]]] = {}  # by owner, in the order of turns; no queue is empty
        self._served = 0.0

    @property
    def num_owners(self) -> int:
        """Number of owners with items."""
        return len(self._of)

    def __bool__(self) -> bool:
        return bool(self._of)

    def push(self, owner: str, item: _T, cost: float = 1) -> None:
        """Add an item after the owner's others."""
        self._of.setdefault(owner, deque()).append((item, cost))

    def pop(self) -> tuple[str, _T]:
        """Remove and return the first item of the owner whose turn it is.

        Raises:
            StopIteration: the queue is empty.
        """
        owner = next(iter(self._of))
        items = self._of[owner]
        item, cost = items.popleft()
        self._served += cost
        if not items or self._served >= self.turn:
            self._served = 0.0
            del self._of[owner]
            if items:
                self._of[owner] = items  # at the end, after the other owners
        return owner, item


@dataclass(frozen=True, slots=True)
class Want:
    """What one gate asks for.

    Attributes:
        demand: slots it could use.
        weight: its relative share if there is not enough for all, ≥ 1.
        group: whose cap applies to it.
        served: slots it recently got; the holder with the fewest comes first if there is less than one slot for each.
    """

    demand: int
    weight: int
    group: str
    served: int = 0


def fair_shares(slots: int, wants: Sequence[Want], caps: Mapping[str, int]) -> list[int]:
    """Max-min fair shares, in order: none above its demand, no group above its cap. Takes O(slots · log wants)."""
    shares, taken = [0] * len(wants), Counter[str]()
    queue = [(0.0, want.served / want.weight, index) for index, want in enumerate(wants) if want.demand > 0]
    heapify(queue)
    while queue and slots > 0:
        _, served, index = heappop(queue)
        want = wants[index]
        if taken[want.group] >= caps[want.group]:
            continue
        shares[index] += 1
        taken[want.group] += 1
        slots -= 1
        if shares[index] < want.demand:
            heappush(queue, (shares[index] / want.weight, served, index))
    return shares
