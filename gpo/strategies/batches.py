"""The train examples that each step uses."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from random import Random


@dataclass(frozen=True, slots=True)
class TrainBatches:
    """Splits the train split into batches, in a new random order for each epoch.

    Attributes:
        num_examples: size of the train split, ≥ 1.
        batch_size: ≥ 1; the last batch of an epoch may be smaller.
        seed: determines the orders.
    """

    num_examples: int
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return ceil(self.num_examples / self.batch_size)

    def __call__(self, step: int) -> tuple[int, ...]:
        """Indices into the train split for step ``step`` ≥ 0; at least one. O(num_examples)."""
        epoch, batch = divmod(step, self.per_epoch)
        order = list(range(self.num_examples))
        Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
        return tuple(order[batch * self.batch_size : (batch + 1) * self.batch_size])
