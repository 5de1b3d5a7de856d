"""A queue that serves several in turn."""

from __future__ import annotations

from collections import deque
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
