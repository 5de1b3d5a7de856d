"""Trying a call again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from gpo.errors import ModelUnavailable

_T = TypeVar("_T")

_SOON_S = 0.5
"""An endpoint that asks for a shorter wait, or none, is not asked again and again without growing ones."""
_AWAY_S = 5.0
"""Longest wait where the endpoint is away: it shall not stand idle for a minute when it is back."""
_JITTER = 0.1
"""Added to a wait that the endpoint asked for, as a share of it: those who were refused together shall not come back
together."""


@dataclass(frozen=True, slots=True)
class Retries:
    """When to try again, and when to give up.

    Attributes:
        max_attempts: tries of one call in all, ≥ 1, but for those that were only one too many at the time, or met no
            endpoint.
        patience_s: how long these are tried again, in seconds of waiting; tries of the other kinds in between do not
            begin it anew.
        max_backoff_s: longest wait between two tries, in seconds; a longer ``Retry-After`` is cut to it.
    """

    max_attempts: int
    patience_s: float
    max_backoff_s: float

    async def of(self, call: Callable[[], Awaitable[_T]]) -> tuple[_T, int]:
        """What the call returns, and how many retries that took.

        A transient failure is followed by a jittered wait, which grows exponentially or is the endpoint's own
        ``Retry-After``.

        Raises:
            ModelUnavailable: the last one, with the number of retries, once it is given up.
            ModelRefused: at once.
        """
        try:
            return await call(), 0  # nearly always, and tenacity takes its time
        except ModelUnavailable as failure:
            failures = [failure]
        tries = 0

        async def attempt() -> _T:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise failures[0]
            try:
                return await call()
            except ModelUnavailable as failure:
                failures.append(failure)
                raise

        retrying = tenacity.AsyncRetrying(
            stop=lambda state: self._is_enough(failures, state),
            wait=lambda state: self._wait_s(failures, state),
            retry=tenacity.retry_if_exception_type(ModelUnavailable),
            reraise=True,
        )
        try:
            return await retrying(attempt), len(failures)
        except ModelUnavailable as failure:
            raise ModelUnavailable(str(failure), len(failures) - 1, is_away=failure.is_away) from None

    def _is_enough(self, failures: list[ModelUnavailable], state: tenacity.RetryCallState) -> bool:
        counted = sum(not _says_nothing_of_the_call(failure) for failure in failures)
        # Not the time in our own queue.
        is_out_of_patience = state.idle_for > self.patience_s
        return counted >= self.max_attempts or (_says_nothing_of_the_call(failures[-1]) and is_out_of_patience)

    def _wait_s(self, failures: list[ModelUnavailable], state: tenacity.RetryCallState) -> float:
        longest_s = min(_AWAY_S, self.max_backoff_s) if failures[-1].is_away else self.max_backoff_s
        backoff = float(tenacity.wait_random_exponential(multiplier=0.5, max=longest_s)(state))
        asked = failures[-1].retry_after_s
        if asked is None:
            return backoff
        waits = min(asked, self.max_backoff_s) * (1 + _JITTER * random.random())
        return waits if asked >= _SOON_S else max(waits, backoff)


def _says_nothing_of_the_call(failure: ModelUnavailable) -> bool:
    return failure.too_many or failure.is_away
