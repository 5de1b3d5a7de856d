"""A queue that serves several in turn."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

_T = TypeVar("_T")


class FairQueue(Generic[_T]):
    """First in, first out for each owner; the owners take turns. All operations take O(1).

    A turn is long enough to get something done. Were it a single item, all owners who came together would be done
    together, and leave nothing to do for whoever serves them; trajectories would all propose at the same time.

    Attributes:
        turn: cost of the items that are served to an owner before it is another's turn; at least one item is.
    """

    def __init__(self, turn: float = 1) -> None:
        self.turn = turn
        self._of: dict[str, deque[tuple[_T, float]]] = {}  # by owner, in the order of their turns; none is empty
        self._served = 0.0

    @property
    def num_owners(self) -> int:
        """Owners who wait."""
        return len(self._of)

    def __bool__(self) -> bool:
        return bool(self._of)

    def push(self, owner: str, item: _T, cost: float = 1) -> None:
        """Add an item at the owner's end."""
        self._of.setdefault(owner, deque()).append((item, cost))

    def pop(self) -> tuple[str, _T]:
        """The first item of the owner whose turn it is.

        Raises:
            StopIteration: there is none.
        """
        owner = next(iter(self._of))
        items = self._of[owner]
        item, cost = items.popleft()
        self._served += cost
        if not items or self._served >= self.turn:
            self._served = 0.0
            del self._of[owner]
            if items:
                self._of[owner] = items  # at the end: the others come first
        return owner, item


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
