"""What other nodes told last: it stands in for a node that is out of reach, and for one that is lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from actors.metrics.tally import Tally, lost


class SilentNodeError(Exception):
    """A node told an exporter before this one, and has not told this one yet: what is known may be less than was said.

    A counter that falls is one that began anew, to a scraper; a scrape that fails is none.
    """


class Elsewhere:
    """The last tally of each other node, of one run. Reading it is safe in any thread."""

    def __init__(self) -> None:
        self._told: dict[str, Tally] = {}
        self._by_hearsay: set[str] = set()

    def told(self) -> dict[str, Tally]:
        """Node → what it told last; to be handed to the exporter after this one."""
        return dict(self._told)

    def recall(self, told: Mapping[str, Tally]) -> None:
        """Learn what an exporter before this one was told; what this one heard itself is newer."""
        for node, counted in told.items():
            if counted and node not in self._told:
                self._by_hearsay.add(node)
                self._told[node] = counted

    def hear(self, node: str, counted: Tally) -> None:
        """A node tells what its processes have counted."""
        self._told[node] = counted
        self._by_hearsay.discard(node)

    def tallies(self, alive: Collection[str]) -> list[Tally]:
        """What is known of the nodes; the processes of those that are not alive have died with them.

        Raises:
            SilentNodeError: a node is alive, and what is known of it is out of date.
        """
        silent = self._by_hearsay.intersection(alive)
        if silent:
            raise SilentNodeError(f"waiting for the counts of {len(silent)} nodes")
        return [counted if node in alive else lost(counted) for node, counted in self.told().items()]
