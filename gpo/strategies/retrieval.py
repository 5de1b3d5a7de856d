"""Update direction: which past prompts the optimizer model sees (the paper's trajectory retrieval).

Every retriever selects from the trajectory's history without the current prompt, which the optimizer model sees anyway.
It returns at most ``k`` candidates, the most relevant one *last*; fewer if the history is short, none for ``k = 0``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from gpo.models.protocol import Embedder
from gpo.trajectory import Candidate, Trajectory


class Retriever(Protocol):
    """Selects past prompts to show with the current prompt."""

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
    """The most recently scored prompts, in the order in which they were scored."""

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        return _last(_past(trajectory), k)


@dataclass(frozen=True, slots=True)
class ImportanceRetriever:
    """The prompts with the highest mean scores; of equal ones, the later ones."""

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        return _last(tuple(sorted(_past(trajectory), key=lambda candidate: candidate.score.mean)), k)


@dataclass(frozen=True, slots=True)
class RelevanceRetriever:
    """The prompts most similar to the current one by cosine of embeddings; of equal ones, the later ones.

    GPO's own choice. The embedder is asked for the whole history in every step; it keeps the vectors that it knows.
    """

    embedder: Embedder

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        past = _past(trajectory)
        if not past or not k:
            return ()
        import numpy as np  # the configuration imports this module, and most commands need no NumPy

        texts = [trajectory.current.prompt.text, *(candidate.prompt.text for candidate in past)]
        vectors_ND = np.asarray(await self.embedder.embed(texts), dtype=np.float64)
        lengths_N = np.linalg.norm(vectors_ND, axis=1)
        # A text without known words has a zero vector; its similarity is 0 rather than NaN.
        unit_ND = vectors_ND / np.where(lengths_N > 0, lengths_N, 1.0)[:, None]
        similarity = unit_ND[1:] @ unit_ND[0]
        nearest_last = np.argsort(similarity, kind="stable")[-k:]
        return tuple(past[index] for index in nearest_last)


@dataclass(frozen=True, slots=True)
class MixedRetriever:
    """By turns the next one by importance and the next one by relevance; the best prompt is shown last."""

    embedder: Embedder

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        num_past = len(trajectory.history)
        important = await ImportanceRetriever().retrieve(trajectory, k=num_past if k else 0)
        relevant = await RelevanceRetriever(self.embedder).retrieve(trajectory, k=num_past if k else 0)
        by_turns = chain.from_iterable(zip(reversed(important), reversed(relevant), strict=True))
        first = {candidate.prompt: candidate for candidate in by_turns}
        return tuple(reversed(list(first.values())[:k]))
