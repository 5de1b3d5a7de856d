"""Which train examples a step works with."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from random import Random


@dataclass(frozen=True, slots=True)
class TrainBatches:
    """Passes over the train split in batches, in an order that is drawn anew for each pass.

    Attributes:
        num_examples: in the train split, ≥ 1.
        batch_size: ≥ 1; the last batch of a pass may be smaller.
        seed: decides the orders.
    """

    num_examples: int
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the split."""
        return ceil(self.num_examples / self.batch_size)

    def __call__(self, step: int) -> tuple[int, ...]:
        """Positions in the train split of the examples of step ``step`` ≥ 0; at least one. O(num_examples)."""
        epoch, batch = divmod(step, self.per_epoch)
        order = list(range(self.num_examples))
        Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
        return tuple(order[batch * self.batch_size : (batch + 1) * self.batch_size])
