"""Update direction: which past prompts the optimizer model gets to see.

The paper's "trajectory-based update direction" by retrieval. Every retriever draws from the trajectory's history
without the current prompt, which the optimizer model sees anyway, and returns at most ``k`` candidates, the most
relevant one *last*; fewer where the history is short, none for ``k = 0``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpo.models.protocol import Embedder
from gpo.trajectory import Candidate, Trajectory


class Retriever(Protocol):
    """Chooses the neighbours of the current prompt."""

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        """At most ``k`` past candidates, most relevant last."""
        ...


def _past(trajectory: Trajectory) -> tuple[Candidate, ...]:
    current = trajectory.current.prompt
    return tuple(candidate for candidate in trajectory.history if candidate.prompt != current)


def _last(candidates: tuple[Candidate, ...], k: int) -> tuple[Candidate, ...]:
    return candidates[-k:] if k else ()


@dataclass(frozen=True, slots=True)
class RecencyRetriever:
    """The prompts scored last, in the order in which they were scored."""

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        return _last(_past(trajectory), k)


@dataclass(frozen=True, slots=True)
class ImportanceRetriever:
    """The prompts with the highest mean score; among equals, those scored later."""

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        return _last(tuple(sorted(_past(trajectory), key=lambda candidate: candidate.score.mean)), k)


@dataclass(frozen=True, slots=True)
class RelevanceRetriever:
    """The prompts nearest in meaning to the current one: cosine of sentence embeddings; among equals, the later ones.

    GPO's own choice. Embeds the whole history at every step: O(history) texts, which a static embedding model does in
    microseconds and an endpoint in one request.
    """

    embedder: Embedder

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        past = _past(trajectory)
        if not past or not k:
            return ()
        texts = [trajectory.current.prompt.text, *(candidate.prompt.text for candidate in past)]
        vectors_ND = np.asarray(await self.embedder.embed(texts), dtype=np.float64)
        lengths_N = np.linalg.norm(vectors_ND, axis=1)
        # A text without a known word has a zero vector: alike to nothing, rather than NaN.
        unit_ND = vectors_ND / np.where(lengths_N > 0, lengths_N, 1.0)[:, None]
        similarity = unit_ND[1:] @ unit_ND[0]
        nearest_last = np.argsort(similarity, kind="stable")[-k:]
        return tuple(past[index] for index in nearest_last)
