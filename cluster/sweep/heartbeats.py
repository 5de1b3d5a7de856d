"""Heartbeats of the processes that work on one study, and which of these processes are dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from optuna.study import Study

from gpo.limits.messages import Spent
from gpo.runtime.process import ProcessIdentity

_PREFIX = "process:"
_LOCAL_LEASES = 5


@dataclass
class Heartbeats:
    """The heartbeats of all processes, kept in the study's user attributes.

    Clocks of different machines are never compared: each process measures, by its own clock, for how long another's
    heartbeat has not changed.

    Attributes:
        lease_s: a process without a new heartbeat for this long counts as dead. On this machine, a process
            counts as dead as soon as it has ended; while it still runs, only after several leases.
        me: ID of this process.
    """

    study: Study
    lease_s: float
    me: str = field(default_factory=lambda: uuid4().hex[:12])
    now: Callable[[], float] = time.monotonic
    _beats: int = 0
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])

    def beat(self, spent: Spent, *, ended: bool = False) -> None:
        """Write a heartbeat.

        Args:
            spent: by this process.
            ended: whether this process works on no trial any more.
        """
        self._beats += 1
        self.study.set_user_attr(
            _PREFIX + self.me,
            {
                "beat": self._beats,
                "identity": ProcessIdentity.current().encode(),
                "spent": [spent.calls, spent.tokens, spent.usd],
                "ended": ended,
            },
        )

    def others_spent(self) -> Spent:
        """Spending of all processes except this one, including those that have ended."""
        others = (row["spent"] for name, row in self._rows().items() if name != self.me)
        return sum((Spent(int(calls), int(tokens), float(usd)) for calls, tokens, usd in others), start=Spent())

    def dead(self) -> Callable[[str | None, str], bool]:
        """Read the table once; returns a function of a process's ID and the name of its work: whether it is dead.

        A process that is not in the table, or has not written its ID onto its work yet, gets a whole lease to do so.
        """
        rows = self._rows()
        for name, row in rows.items():
            self._unchanged_s(name, int(row["beat"]))

        def is_dead(name: str | None, work: str) -> bool:
            if name == self.me:
                return False
            row = rows.get(name or "")
            if row is None:
                return self._unchanged_s(f"{work} of {name}", 0) >= self.lease_s
            if row["ended"]:
                return True
            patience_s = self.lease_s
            identity = ProcessIdentity.parse(str(row["identity"]))
            if identity is not None and identity.is_local:
                if identity.has_certainly_ended:
                    return True
                patience_s *= _LOCAL_LEASES
            return self._unchanged_s(str(name), int(row["beat"])) >= patience_s

        return is_dead

    def _unchanged_s(self, name: str, beat: int) -> float:
        """Seconds since this process first saw this heartbeat."""
        known = self._seen.get(name)
        if known is None or known[0] != beat:
            self._seen[name] = known = (beat, self.now())
        return self.now() - known[1]

    def _rows(self) -> Mapping[str, Mapping[str, Any]]:
        attrs = self.study.user_attrs
        return {name.removeprefix(_PREFIX): row for name, row in attrs.items() if name.startswith(_PREFIX)}
