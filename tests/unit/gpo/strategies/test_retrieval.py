from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from gpo.models.embedding import StaticEmbedder, word_vectors
from gpo.strategies.retrieval import (
    ImportanceRetriever,
    MixedRetriever,
    RecencyRetriever,
    RelevanceRetriever,
    Retriever,
)
from gpo.testing.contracts import RetrieverContract
from gpo.testing.fakes import WordEmbedder
from gpo.testing.samples import candidate, trajectory


class TestRecency(RetrieverContract):
    def make(self) -> Retriever:
        return RecencyRetriever()


class TestImportance(RetrieverContract):
    def make(self) -> Retriever:
        return ImportanceRetriever()


class TestRelevance(RetrieverContract):
    def make(self) -> Retriever:
        return RelevanceRetriever(WordEmbedder())


class TestMixed(RetrieverContract):
    def make(self) -> Retriever:
        return MixedRetriever(WordEmbedder())


@dataclass(frozen=True)
class Vectors:
    """Embeddings that a test spells out; a text without one has the zero vector."""

    known: dict[str, tuple[float, float]]

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [self.known.get(text, (0.0, 0.0)) for text in texts]


# The search is at "now": one with the highest score, in the second step.
SEARCH = trajectory(
    candidate("start", 0.5),
    [candidate("low", 0.1), candidate("high", 0.7)],
    [candidate("now", 0.9), candidate("tie", 0.5)],
)


async def texts(retriever: Retriever, k: int) -> list[str]:
    return [neighbour.prompt.text for neighbour in await retriever.retrieve(SEARCH, k=k)]


async def test_recency_gives_the_last_ones_in_order() -> None:
    assert await texts(RecencyRetriever(), 3) == ["low", "high", "tie"]


async def test_mixed_takes_turns_and_gives_the_best_one_last() -> None:
    near_low = MixedRetriever(Vectors({"now": (1.0, 0.0), "low": (1.0, 0.1), "start": (1.0, 0.5), "tie": (0.0, 1.0)}))
    assert await texts(near_low, 4) == ["start", "tie", "low", "high"]
    assert await texts(near_low, 2) == ["low", "high"]
    assert await texts(near_low, 1) == ["high"]


async def test_importance_gives_the_highest_and_the_later_of_equals_last() -> None:
    assert await texts(ImportanceRetriever(), 4) == ["low", "start", "tie", "high"]
    assert await texts(ImportanceRetriever(), 2) == ["tie", "high"]


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        pytest.param(
            {"now": (1, 0), "start": (1, 1), "low": (-1, 0), "high": (5, 0.5), "tie": (0, 1)},
            ["low", "tie", "start", "high"],
            id="by angle, whatever the length",
        ),
        pytest.param(
            {"now": (0, 1), "start": (0, 2), "low": (0, 1), "high": (1, 0), "tie": (0, 4)},
            ["high", "start", "low", "tie"],
            id="the later of equals last",
        ),
        pytest.param(
            {"now": (0, 1), "high": (0, 1), "low": (0, -1)},
            ["low", "start", "tie", "high"],
            id="a zero vector is alike to nothing, rather than opposed to it",
        ),
        pytest.param({"start": (1, 0), "low": (0, 1)}, ["start", "low", "high", "tie"], id="the current one is zero"),
    ],
)
async def test_relevance_gives_the_nearest_last(vectors: dict[str, tuple[float, float]], expected: list[str]) -> None:
    assert await texts(RelevanceRetriever(Vectors(vectors)), 4) == expected


async def test_relevance_keeps_the_order_of_many_equals() -> None:
    search = trajectory(candidate("now", 1.0), [candidate(f"other {number}", 0.0) for number in range(100)], [])
    search = replace(search, steps=(replace(search.steps[0], successor=search.initial),))
    neighbours = await RelevanceRetriever(Vectors({})).retrieve(search, k=40)
    assert neighbours == search.history[-40:]


@pytest.mark.parametrize(("search", "k"), [(SEARCH, 0), (trajectory(candidate("start")), 3)])
async def test_relevance_requests_only_the_embeddings_it_needs(search, k: int) -> None:
    embedder = WordEmbedder()
    assert await RelevanceRetriever(embedder).retrieve(search, k=k) == ()
    assert embedder.calls == []


async def test_relevance_embeds_the_history_in_one_call() -> None:
    embedder = WordEmbedder()
    await RelevanceRetriever(embedder).retrieve(SEARCH, k=1)
    assert [sorted(call) for call in embedder.calls] == [["high", "low", "now", "start", "tie"]]


async def test_static_embeddings_of_similar_texts_are_close() -> None:
    search = trajectory(
        candidate("Think step by step.", 0.9),
        [candidate("Name the capital of the country.", 0.1), candidate("Reason one step after the other.", 0.1)],
        [candidate("Solve the problem step by step.", 1.0)],
    )
    neighbours = await RelevanceRetriever(StaticEmbedder()).retrieve(search, k=3)
    assert [neighbour.prompt.text for neighbour in neighbours] == [
        "Name the capital of the country.",
        "Reason one step after the other.",
        "Think step by step.",
    ]
    assert len(await StaticEmbedder().embed([])) == 0


async def test_a_static_embedding_does_not_depend_on_the_other_texts() -> None:
    """Vectors are kept, and a resumed search has not the same ones."""
    texts = ["Think.", "Think step by step, and name the capital of the country.", "", "Answer with one word. " * 40]
    together = np.asarray(word_vectors().embed(texts))
    assert np.array_equal(np.asarray(await StaticEmbedder().embed(texts)), together)


async def test_static_embeddings_can_be_changed_by_whoever_asked_for_them() -> None:
    first = np.array(await StaticEmbedder().embed(["Think.", "Think."]))
    for vector in await StaticEmbedder().embed(["Think."]):
        np.asarray(vector)[:] = 0
    assert np.array_equal(np.array(await StaticEmbedder().embed(["Think.", "Think."])), first)
