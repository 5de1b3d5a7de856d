"""For tests of this project and of third-party strategies: deterministic fakes and contract test classes.

The contract classes can be imported from here. They need pytest to run, and not to be imported.
"""

from gpo.testing.contracts import (
    AcceptanceContract,
    CompletionStoreContract,
    RefinementContract,
    RetrieverContract,
    ScheduleContract,
    ScorerContract,
    ScoringContract,
)

__all__ = [
    "AcceptanceContract",
    "CompletionStoreContract",
    "RefinementContract",
    "RetrieverContract",
    "ScheduleContract",
    "ScorerContract",
    "ScoringContract",
]
