"""Sentence embeddings: from an endpoint, or from word vectors without a network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from gpo.errors import ModelRefused, RefusalReason
from gpo.models.protocol import EmbeddingModel

_MAX_BATCH_SIZE = 64
"""Texts in one request: some endpoints refuse many, and the reply must stay within bounds."""


@dataclass(frozen=True)
class CachedEmbedder:
    """Embeddings from a model, which is asked for each text once per process."""

    model: EmbeddingModel
    _vectors: dict[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]], repr=False, compare=False)
    _accepted_sizes: list[int] = field(default_factory=lambda: [_MAX_BATCH_SIZE], repr=False, compare=False)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text; see ``gpo.models.protocol.Embedder``."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        while missing:
            size = min(_MAX_BATCH_SIZE, *self._accepted_sizes)
            batch = missing[:size]
            try:
                embeddings = await self.model.embed_batch(batch)
            except ModelRefused as refusal:
                if refusal.reason is not RefusalReason.REQUEST or len(batch) == 1:
                    raise
                self._accepted_sizes.append(max(1, len(batch) // 2))  # some endpoints accept only a few texts at once
                continue
            self._vectors.update(zip(batch, embeddings.vectors, strict=True))
            missing = missing[size:]
        return [self._vectors[text] for text in texts]


@dataclass(frozen=True, slots=True)
class StaticEmbedder:
    """Mean of the 256-dimensional token vectors that the package ``wordllama`` ships; needs no network and no torch.

    ``benchmarks.paraphrases`` measures its quality.
    """

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text; see ``gpo.models.protocol.Embedder``. Never fails and never waits."""
        return [_mean_vector(text).copy() for text in texts]  # a user's strategy may change its own


@lru_cache(maxsize=8192)
def _mean_vector(text: str) -> Any:
    """Kept, since each step compares all earlier prompts. A text has the same vector in every batch."""
    return word_vectors().embed([text])[0]


@cache
def word_vectors() -> Any:
    """The word vectors, loaded once per process, which takes half a second."""
    # On import, the package would let everything be logged, unless logging has a handler.
    silent = logging.NullHandler()
    logging.getLogger().addHandler(silent)
    try:
        import wordllama
    finally:
        logging.getLogger().removeHandler(silent)

    # The package looks for its files in a cache folder and downloads missing ones; its own folder has all of them.
    package_folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=package_folder, disable_download=True)
