"""A queue that serves several in turn."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

_T = TypeVar("_T")


class FairQueue(Generic[_T]):
    """First in, first out for each owner; the owners take turns. All operations take O(1)."""

    def __init__(self) -> None:
        self._of: dict[str, deque[_T]] = {}  # by owner, in the order of their turns; none is empty

    @property
    def num_owners(self) -> int:
        """Owners who wait."""
        return len(self._of)

    def __bool__(self) -> bool:
        return bool(self._of)

    def push(self, owner: str, item: _T) -> None:
        """Add an item at the owner's end."""
        self._of.setdefault(owner, deque()).append(item)

    def pop(self) -> tuple[str, _T]:
        """The next owner's first item.

        Raises:
            StopIteration: there is none.
        """
        owner = next(iter(self._of))
        items = self._of.pop(owner)
        item = items.popleft()
        if items:
            self._of[owner] = items  # at the end: the others come first
        return owner, item
