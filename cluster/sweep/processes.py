"""The processes that work on one study: signs of life, and who is dead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from optuna.study import Study

from gpo.limits.messages import Spent
from gpo.process import has_ended, process_space, process_start

_PREFIX = "process:"
_PATIENCE = 5


@dataclass
class Processes:
    """The table of processes in a study's attributes.

    Clocks of machines are never compared: whoever looks at a process counts, by its own clock, for how long its sign of
    life has not changed.

    Attributes:
        lease_s: after so long without a new one, a process counts as dead. On one machine, a process that is not there
            any more is dead at once, and one that is there is only slow, for some leases.
        me: names this process.
    """

    study: Study
    lease_s: float
    me: str = field(default_factory=lambda: uuid4().hex[:12])
    now: Callable[[], float] = time.monotonic
    _beats: int = 0
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])

    def beat(self, spent: Spent, *, ended: bool = False) -> None:
        """Give a sign of life.

        Args:
            spent: by this process.
            ended: it works on nothing any more.
        """
        self._beats += 1
        self.study.set_user_attr(
            _PREFIX + self.me,
            {
                "beat": self._beats,
                "place": process_space(),
                "pid": os.getpid(),
                "started": process_start(os.getpid()),
                "spent": [spent.calls, spent.tokens, spent.usd],
                "ended": ended,
            },
        )

    def others_spent(self) -> Spent:
        """What all processes but this one have spent, those that have ended too."""
        others = (row["spent"] for name, row in self._rows().items() if name != self.me)
        return sum((Spent(int(calls), int(tokens), float(usd)) for calls, tokens, usd in others), start=Spent())

    def dead(self) -> Callable[[str | None, str], bool]:
        """Tells whether the process of this name, which works on the thing of that name, is dead.

        It looks at the table once. Who is not in it, or has not said its name yet, is given the time of a lease, too:
        it may be about to.
        """
        rows = self._rows()
        for name, row in rows.items():
            self._note(name, int(row["beat"]))

        def is_dead(name: str | None, thing: str) -> bool:
            if name == self.me:
                return False
            row = rows.get(name or "")
            if row is None:
                return self._note(f"{thing} of {name}", 0) >= self.lease_s
            if row["ended"]:
                return True
            patience_s = self.lease_s
            if row["place"] is not None and row["place"] == process_space():
                if row["started"] is not None and has_ended(int(row["pid"]), str(row["started"])):
                    return True
                patience_s *= _PATIENCE
            return self._note(str(name), int(row["beat"])) >= patience_s

        return is_dead

    def _note(self, name: str, beat: int) -> float:
        """For how long this beat is the last one, in seconds."""
        known = self._seen.get(name)
        if known is None or known[0] != beat:
            self._seen[name] = known = (beat, self.now())
        return self.now() - known[1]

    def _rows(self) -> Mapping[str, Mapping[str, Any]]:
        attrs = self.study.user_attrs
        return {name.removeprefix(_PREFIX): row for name, row in attrs.items() if name.startswith(_PREFIX)}
