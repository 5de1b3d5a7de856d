"""How well embeddings distinguish paraphrases from other instructions: ``python -m benchmarks.paraphrases``."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from gpo.models.embedding import StaticEmbedder

PAIRS = (
    ("Let's think step by step.", "Think through the problem one step at a time."),
    (
        "Classify the sentiment of this review as positive or negative.",
        "Decide whether the opinion expressed in the text is favorable or unfavorable.",
    ),
    ("Give the opposite of the word.", "What is the antonym of this term?"),
    ("Answer with the name of the capital city.", "State which city is the seat of government."),
    ("Sort the words alphabetically.", "Arrange these terms in alphabetical order."),
    ("Translate the sentence into French.", "Render this text in the French language."),
    ("Solve the math problem and give the final number.", "Work out the arithmetic and report the numeric answer."),
    ("Summarize the article in one sentence.", "Write a one-line summary of the text."),
    ("Determine if the statement is true or false.", "Say whether the claim is correct or incorrect."),
    ("Choose the best option from the list.", "Select the most suitable choice among the options."),
)


async def main() -> None:
    """Print the mean cosine of paraphrases and of other pairs, how often the paraphrase is nearest, and the speed."""
    embedder = StaticEmbedder()
    first = _unit(await embedder.embed([text for text, _ in PAIRS]))
    second = _unit(await embedder.embed([text for _, text in PAIRS]))
    cosine_NN = first @ second.T
    other = cosine_NN[~np.eye(len(PAIRS), dtype=bool)]
    nearest = int((cosine_NN.argmax(axis=1) == np.arange(len(PAIRS))).sum())
    print(f"cosine of paraphrases {np.diag(cosine_NN).mean():.2f}, of others {other.mean():.2f}")
    print(f"the paraphrase is nearest in {nearest} of {len(PAIRS)}")
    started, repeats = time.perf_counter(), 1000
    for _ in range(repeats):
        await embedder.embed([PAIRS[0][0]])
    print(f"{1000 * (time.perf_counter() - started) / repeats:.2f} ms a text")


def _unit(vectors: object) -> np.ndarray:
    array_ND = np.asarray(vectors, dtype=float)
    unit_ND: np.ndarray = array_ND / np.linalg.norm(array_ND, axis=1, keepdims=True)
    return unit_ND


if __name__ == "__main__":
    asyncio.run(main())
