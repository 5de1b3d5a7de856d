"""What was spent of one budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpo.limits.messages import Budget, Spent


class BudgetAccount:
    """Adds up what gates report, compares it with the budget, and grants permits for calls.

    If calls are bounded, exactly that many are answered: each needs a permit, and the permit of a call that failed is
    returned. Tokens and dollars are known only with the reply, so the calls in flight may exceed their bounds.

    Attributes:
        budget: what may be spent; ``None`` until it is known.
    """

    def __init__(self) -> None:
        self.budget: Budget | None = None
        self._earlier = Spent()
        self._holders: dict[str, _Holder] = {}

    def open(self, budget: Budget, spent: Spent) -> None:
        """Set the budget. ``spent`` is the part of it that is already spent."""
        self.budget = budget
        self._earlier = spent - self._reported
        for holder in self._holders:
            self.forget(holder)

    def restore(self, budget: Budget, at_least: Spent) -> None:
        """Set the budget. Spending that a caller remembers is used if it exceeds the spending known here."""
        self.budget = budget
        if at_least.calls > self.spent.calls:
            self._earlier = at_least - self._reported

    @property
    def spent(self) -> Spent:
        """The total."""
        return self._earlier + self._reported

    @property
    def _reported(self) -> Spent:
        return sum((holder.spent for holder in self._holders.values()), start=Spent())

    def take(self, holder: str, spent: Spent, returned: int) -> bool:
        """Take a gate's totals of costs and of returned permits; whether permits became available.

        Lower totals than before come from an older report and are ignored. The first totals of a gate are its zero
        point: after a restart, ``restore`` supplies the spending up to then.
        """
        known = self._holders.setdefault(holder, _Holder(spent, returned))
        returned_before = known.returned
        if spent.calls + returned >= known.progress:
            known.spent, known.returned = spent - known.first_spent, returned - known.first_returned
            known.progress = spent.calls + returned
        return known.returned > returned_before

    def received(self, holder: str, permits: int) -> None:
        """Take a gate's total of received permits, so that permits lost on the way do not count as granted."""
        known = self._holders[holder]
        if known.first_received is None:
            known.first_received = permits - known.granted
        known.granted = permits - known.first_received

    def forget(self, holder: str) -> None:
        """Take back the permits of a gate that does not exist any more."""
        known = self._holders.get(holder)
        if known is not None:
            known.granted = known.spent.calls + known.returned
            known.first_received = None

    def can_permit(self) -> bool:
        """Whether a permit is available."""
        return self.budget is not None and (self.budget.calls is None or self._left(self.budget.calls) > 0)

    def _left(self, calls: int) -> int:
        return calls - self.spent.calls - sum(holder.outstanding for holder in self._holders.values())

    def permits(self, holder: str, wanted: int) -> int:
        """Grant at most ``wanted`` permits; they count as spent until they are returned."""
        if self.budget is None:
            return 0
        known = self._holders.setdefault(holder, _Holder())
        granted = wanted
        if self.budget.calls is not None:
            granted = max(0, min(wanted, self._left(self.budget.calls)))
        known.granted += granted
        return granted

    def exhausted(self) -> str:
        """Which bound is reached, in words; empty if none is."""
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
    first_spent: Spent = field(default_factory=Spent)
    first_returned: int = 0
    spent: Spent = field(default_factory=Spent)
    returned: int = 0
    granted: int = 0
    first_received: int | None = None
    progress: int = 0

    @property
    def outstanding(self) -> int:
        return max(0, self.granted - self.spent.calls - self.returned)
