"""What one account has spent, and what it may."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpo.limits.messages import Budget, Spent


class Account:
    """Adds up what gates report, holds it against a budget, and hands out permits for calls.

    Where calls are bounded, no more are answered than that: each needs a permit, and one whose call failed comes back.
    Tokens and money are known when a reply is there, so calls under way may take them beyond.

    Attributes:
        budget: what may be spent; ``None`` while nobody said.
    """

    def __init__(self) -> None:
        self.budget: Budget | None = None
        self._earlier = Spent()
        self._holders: dict[str, _Holder] = {}

    def open(self, budget: Budget, spent: Spent) -> None:
        """Count from here, beginning with what was spent already."""
        self.budget = budget
        self._earlier = spent - self._reported
        for holder in self._holders:
            self.forget(holder)

    def make_good(self, budget: Budget, at_least: Spent) -> None:
        """Go on with what somebody else remembers, where that is more."""
        self.budget = budget
        if at_least.calls > self.spent.calls:
            self._earlier = at_least - self._reported

    @property
    def spent(self) -> Spent:
        """In all."""
        return self._earlier + self._reported

    @property
    def _reported(self) -> Spent:
        return sum((holder.spent for holder in self._holders.values()), start=Spent())

    def take(self, holder: str, spent: Spent, returned: int) -> bool:
        """What a gate has spent and given back since its own beginning; whether there are permits to hand out again.

        Less than before is old news.

        What it says first is where its count begins here: a limiter that was started anew has that from others.
        """
        known = self._holders.setdefault(holder, _Holder(spent, returned))
        returned_before = known.returned
        if spent.calls + returned >= known.heard:
            known.spent, known.returned = spent - known.at_first, returned - known.returned_at_first
            known.heard = spent.calls + returned
        return known.returned > returned_before

    def received(self, holder: str, permits: int) -> None:
        """So many permits have reached a gate since its own beginning; those that were lost on the way are none."""
        known = self._holders[holder]
        if known.received_at_first is None:
            known.received_at_first = permits - known.granted
        known.granted = permits - known.received_at_first

    def forget(self, holder: str) -> None:
        """The gate is gone, and its permits with it."""
        known = self._holders.get(holder)
        if known is not None:
            known.granted = known.spent.calls + known.returned
            known.received_at_first = None

    def can_permit(self) -> bool:
        """Whether it has a permit to hand out."""
        return self.budget is not None and (self.budget.calls is None or self._left(self.budget.calls) > 0)

    def _left(self, calls: int) -> int:
        return calls - self.spent.calls - sum(holder.outstanding for holder in self._holders.values())

    def permits(self, holder: str, wanted: int) -> int:
        """Permits for calls, at most so many; they count as spent until they come back."""
        if self.budget is None:
            return 0
        known = self._holders.setdefault(holder, _Holder())
        granted = wanted
        if self.budget.calls is not None:
            granted = max(0, min(wanted, self._left(self.budget.calls)))
        known.granted += granted
        return granted

    def exhausted(self) -> str:
        """Which bound is reached, in words; empty while none is."""
        budget, spent = self.budget or Budget(), self.spent
        if budget.calls is not None and spent.calls >= budget.calls:
            return f"budget.calls: {budget.calls} model calls were answered"
        if budget.tokens is not None and spent.tokens >= budget.tokens:
            return f"budget.tokens: of {budget.tokens} tokens, {spent.tokens} were used"
        if budget.usd is not None and spent.usd >= budget.usd:
            return f"budget.usd: of ${budget.usd:g}, ${spent.usd:.4g} were spent"
        return ""


@dataclass(slots=True)
class _Holder:
    at_first: Spent = field(default_factory=Spent)
    returned_at_first: int = 0
    spent: Spent = field(default_factory=Spent)
    returned: int = 0
    granted: int = 0
    received_at_first: int | None = None
    heard: int = 0

    @property
    def outstanding(self) -> int:
        return max(0, self.granted - self.spent.calls - self.returned)
