"""What gates and the limiter send each other. All are values that pickle; times are durations in seconds.

A *slot* lets one request be in flight; the request gives it back when it ends. A *permit* lets one request start if
a rate or a budget bounds their number; an answered request uses it up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gpo.runtime.process import ProcessIdentity

LEASE_S = 10.0
"""How long a grant is valid. The limiter gives the slots of a gate whose process died to others after this time, or at
once if it can see that the process ended."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Requests that share limits.

    Attributes:
        endpoint: base URL; all models there share the limit that the endpoint's refusals reveal.
        model: the model's name there; rates bound all requests to it.
        concurrency: bound on requests of this role and budget in flight, in all processes together.
        endpoint_concurrency: bound on requests to the endpoint in flight, likewise.
        requests_per_min: bound in any 60 s; ``None`` is no bound.
        tokens_per_min: bound on tokens sent and generated, on average, since a reply's length is known only afterwards.
        role: what the model is called for.
        budget_name: the budget that pays for the calls.
        has_budget: whether that budget bounds anything, so that costs are reported at once.
        has_call_budget: whether it bounds the number of calls, so that each needs a permit.
        shared_env: environment variable with the address of the server through which clusters share the endpoint's
            limits; empty if they do not.
    """

    endpoint: str
    model: str
    concurrency: int
    endpoint_concurrency: int
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    role: str = ""
    budget_name: str = ""
    has_budget: bool = False
    has_call_budget: bool = False
    shared_env: str = ""

    @property
    def group(self) -> str:
        """What ``concurrency`` bounds."""
        return f"{self.budget_name}/{self.role}"

    @property
    def needs_permits(self) -> bool:
        """Whether a request needs a permit besides its slot."""
        return self.has_call_budget or self.requests_per_min is not None or self.tokens_per_min is not None


@dataclass(frozen=True, slots=True)
class Spent:
    """What answered calls cost."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.calls - other.calls, self.tokens - other.tokens, self.usd - other.usd)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds on what may be spent; ``None`` is no bound."""

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A call that is repeated until its endpoint answers.

    Attributes:
        reason: the last failure; names model, address and the endpoint's words.
        for_s: time since the call's first failure, in seconds.
    """

    reason: str
    for_s: float

    def __str__(self) -> str:
        return f"waiting for {self.for_s:.0f} s: {self.reason}"


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a gate, as the gate reports it.

    Attributes:
        holder: unique name of the gate.
        number: rises with every report of the holder.
        epoch: of the last grant that the gate applied.
        slots: requests that may be in flight; more than were granted while surplus requests end.
        in_flight: requests that started and did not end.
        demand: requests in flight and requests that wait.
        weight: trajectories with such requests.
        permits_wanted: for requests that wait without one.
        tokens_each: expected tokens of one of these requests.
        succeeded, refused: requests since the last report that were answered, and that were refused as too many.
        refused_version: newest version of the endpoint's limit under which a request was refused.
        retry_after_s: how long the endpoint asked to wait.
        permits_received: permits since the first report.
        permits_returned: permits since the first report whose requests were not sent or not answered.
        tokens_beyond: tokens since the last report beyond those expected; negative if fewer.
        spent: since the first report.
        leaving: the gate has nothing to send any more, and returns everything.
        process: the gate's process; ``None`` if unknown.
        longest_wait: of the calls that are repeated for long; ``None`` if none is.
    """

    holder: str
    number: int
    pool: Pool
    epoch: int = 0
    slots: int = 0
    in_flight: int = 0
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
    longest_wait: Wait | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a gate may do for the next ``LEASE_S`` seconds.

    Attributes:
        epoch: rises with every grant to the holder.
        slots: requests that may be in flight; if more are, no request may start until enough have ended.
        permits: in addition to those that the gate has.
        contended: whether other gates wait for slots, so that unneeded ones should be returned at once.
        version: of the endpoint's limit; rises when the limit is lowered.
        pause_s: how long no request may start.
        exhausted: which bound of the budget is reached; empty if none is.
    """

    epoch: int
    slots: int
    permits: int = 0
    contended: bool = False
    version: int = 0
    pause_s: float = 0.0
    exhausted: str = ""
