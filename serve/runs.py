"""What the HTTP interface needs of the service that carries out runs, and the service as a Ray actor."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Document = dict[str, Any]


class UnknownRun(LookupError):
    """There is no run with this ID."""


class RefusedRun(ValueError):
    """The configuration of a run cannot be used, or its key was used for another one."""


class NoResult(Exception):
    """No prompt of the run has a score yet."""


class TooManyRuns(Exception):
    """No further run can wait."""


class Runs(Protocol):
    """Starts runs, and knows them all. Replies are plain values; see ``serve.http_schemas`` for their fields."""

    async def submit(self, body: Mapping[str, Any], key: str) -> Document:
        """Accept a run, and reply with its status; a key that is known already means the run that it started.

        Raises:
            RefusedRun, TooManyRuns: see there.
        """
        ...

    async def listed(self) -> list[Document]:
        """The status of each run, without its trajectories; the newest first."""
        ...

    async def status(self, run_id: str) -> Document:
        """The status of a run.

        Raises:
            UnknownRun: see there.
        """
        ...

    async def result(self, run_id: str) -> Document:
        """The best prompts so far.

        Raises:
            UnknownRun, NoResult: see there.
        """
        ...

    async def stop(self, run_id: str) -> Document:
        """Stop a run for good, unless it has ended, and reply with its status.

        Raises:
            UnknownRun: see there.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunsActor:
    """``Runs`` in an actor. Pickles.

    Every method raises a ``RayError`` while the actor cannot be reached, and ``RayTaskError`` where the actor raises.
    """

    handle: Any

    async def submit(self, body: Mapping[str, Any], key: str) -> Document:
        """See ``Runs``."""
        document: Document = await self.handle.submit.remote(body, key)
        return document

    async def listed(self) -> list[Document]:
        """See ``Runs``."""
        documents: list[Document] = await self.handle.listed.remote()
        return documents

    async def status(self, run_id: str) -> Document:
        """See ``Runs``."""
        document: Document = await self.handle.status.remote(run_id)
        return document

    async def result(self, run_id: str) -> Document:
        """See ``Runs``."""
        document: Document = await self.handle.result.remote(run_id)
        return document

    async def stop(self, run_id: str) -> Document:
        """See ``Runs``."""
        document: Document = await self.handle.stop.remote(run_id)
        return document


def new_key() -> str:
    """A key for a request without one, so that it can be repeated if the actor dies before it has replied."""
    return secrets.token_hex(16)
