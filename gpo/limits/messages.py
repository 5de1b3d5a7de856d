"""What gates and the limiter tell each other. All are values that travel by pickling; times are durations."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpo.process import ProcessIdentity


@dataclass(frozen=True, slots=True)
class Pool:
    """Calls that share limits.

    Attributes:
        endpoint: base URL; what is known of the endpoint's own limit holds for all its models.
        model: the model's name there; rates hold for all calls to it.
        concurrency: calls of this role and account under way at once, at most, in all processes.
        endpoint_concurrency: calls under way at the endpoint, likewise.
        requests_per_min: in any 60 s, at most; ``None`` is no limit.
        tokens_per_min: sent and generated, likewise; held on average, since how long a reply is shows afterwards.
        role: what the model is called for.
        account: who pays.
        has_budget: whether the account has any bound, so that what is spent is to be told at once.
        has_call_budget: whether it has one on calls, so that each needs a permit.
    """

    endpoint: str
    model: str
    concurrency: int
    endpoint_concurrency: int
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    role: str = ""
    account: str = ""
    has_budget: bool = False
    has_call_budget: bool = False

    @property
    def group(self) -> str:
        """What ``concurrency`` bounds."""
        return f"{self.account}/{self.role}"

    @property
    def needs_permits(self) -> bool:
        """Whether a place is not enough to make a call."""
        return self.has_call_budget or self.requests_per_min is not None or self.tokens_per_min is not None


@dataclass(frozen=True, slots=True)
class Spent:
    """What answered calls have cost."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.calls - other.calls, self.tokens - other.tokens, self.usd - other.usd)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds on what an account may spend; ``None`` is no bound."""

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a gate says of itself.

    Attributes:
        holder: names the gate; no two have one name.
        number: rises with every report of the holder.
        epoch: of the last grant that it applied.
        places: calls that it may have under way; more than it was granted where some are still ending.
        under_way: calls that were begun and have not ended.
        demand: these, and the calls that wait.
        weight: trajectories with such calls.
        permits_wanted: for calls that wait without one.
        tokens_each: that one of these is expected to take.
        succeeded, refused: calls since the last report that were answered, and that the endpoint said were too many.
        refused_version: newest version of the endpoint's limit under which one was refused.
        retry_after_s: what the endpoint asked for.
        permits_received: since the first report.
        permits_returned: likewise: permits whose calls were not answered, or not made.
        tokens_beyond: since the last report: tokens taken beyond those expected; negative where fewer.
        spent: since the first report.
        leaving: it has nothing to call any more, and gives everything back.
        process: the gate's process; ``None`` if unknown.
    """

    holder: str
    number: int
    pool: Pool
    epoch: int = 0
    places: int = 0
    under_way: int = 0
    demand: int = 0
    weight: int = 1
    permits_wanted: int = 0
    tokens_each: float = 0.0
    succeeded: int = 0
    refused: int = 0
    refused_version: int = 0
    retry_after_s: float = 0.0
    permits_received: int = 0
    permits_returned: int = 0
    tokens_beyond: float = 0.0
    spent: Spent = field(default_factory=Spent)
    leaving: bool = False
    process: ProcessIdentity | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a gate may do from now on, until ``LEASE_S`` seconds from now.

    Attributes:
        epoch: rises with every grant to the holder.
        places: calls that it may have under way; where that is fewer than it has, none may begin until enough ended.
        permits: in addition to those it has.
        contended: others wait for places: what is not needed should be given back at once.
        version: of the endpoint's limit; rises when it is lowered.
        pause_s: no call may begin for so long.
        exhausted: which bound of the budget is reached; empty while none is.
    """

    epoch: int
    places: int
    permits: int = 0
    contended: bool = False
    version: int = 0
    pause_s: float = 0.0
    exhausted: str = ""


LEASE_S = 10.0
"""How long a grant holds, in seconds. A gate whose process died is missed after as long, where the limiter cannot see
that at once, and what it held is given to others."""
