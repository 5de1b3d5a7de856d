"""Sentence embeddings without a network or torch: the static word vectors that the package ``wordllama`` ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class StaticEmbedder:
    """Mean of 256-dimensional token vectors; loaded once a process. See ``benchmarks.paraphrases``."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text; see ``gpo.models.protocol.Embedder``. Never fails and never waits."""
        return vectors().embed(list(texts)) if texts else []


@cache
def vectors() -> Any:
    """Load the word vectors, which takes half a second; once a process."""
    import wordllama

    # The package looks for its files in a cache folder and downloads what it misses; its own folder has them all.
    own_folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=own_folder, disable_download=True)
