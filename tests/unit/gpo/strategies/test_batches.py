from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpo.strategies.batches import TrainBatches


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(0, 3))
def test_a_pass_uses_every_example_once(num_examples: int, batch_size: int, seed: int, epoch: int) -> None:
    batches = TrainBatches(num_examples, batch_size, seed)
    of_pass = [batches(epoch * batches.per_epoch + batch) for batch in range(batches.per_epoch)]
    assert sorted(position for batch in of_pass for position in batch) == list(range(num_examples))
    assert all(len(batch) == batch_size for batch in of_pass[:-1])
    assert 1 <= len(of_pass[-1]) <= batch_size


def test_every_pass_and_every_seed_has_its_own_order() -> None:
    orders = {TrainBatches(20, 20, seed)(step) for seed in (0, 1) for step in (0, 1)}
    assert len(orders) == 4
    assert TrainBatches(20, 20, 0)(1) == TrainBatches(20, 20, 0)(1)
