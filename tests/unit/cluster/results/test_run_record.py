from __future__ import annotations

from dataclasses import replace

import pytest

from actors.search import Phase, SearchKey, Update
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.strategies.stopping import StoppingRule
from gpo.testing.samples import TRAJECTORIES

KEY, OTHER = SearchKey("desk", 0), SearchKey("desk", 1)
STARTED = Checkpoint(TRAJECTORIES["only the initial prompt"], {})
STEPPED = Checkpoint(TRAJECTORIES["one step"], {})


def with_test_scores(checkpoint: Checkpoint) -> Checkpoint:
    for end in (checkpoint.trajectory.initial, checkpoint.trajectory.best):
        checkpoint = checkpoint.with_test(end.prompt, Evaluation(end.score, Usage()))
    return checkpoint


def test_an_update_records_its_checkpoint_and_returns_the_new_steps() -> None:
    record = RunRecord("run", 0.0, keys=(KEY, OTHER))
    assert record.receive(Update(KEY, Phase.PROPOSING, checkpoint=STARTED)) == ()
    assert tuple(record.receive(Update(KEY, Phase.PROPOSING, checkpoint=STEPPED))) == STEPPED.trajectory.steps
    assert not record.receive(Update(KEY, Phase.TESTING, checkpoint=with_test_scores(STEPPED)))
    assert not record.receive(Update(OTHER, Phase.DONE, error="ModelRefused: no"))
    assert (record.steps_taken(KEY), record.steps_taken(OTHER)) == (1, 0)
    assert record.errors == {OTHER: "ModelRefused: no"}


@pytest.mark.parametrize(
    ("checkpoint", "num_steps", "is_tested", "done"),
    [
        (STEPPED, 1, True, False),
        (STEPPED, 1, False, True),
        (STEPPED, 2, False, False),
        (with_test_scores(STEPPED), 1, True, True),
        (with_test_scores(STEPPED), 2, True, False),
    ],
)
def test_a_run_is_complete_with_all_steps_and_test_scores(
    checkpoint: Checkpoint, num_steps: int, *, is_tested: bool, done: bool
) -> None:
    record = RunRecord("run", 0.0, keys=(KEY,), num_steps={KEY: num_steps}, is_tested=is_tested)
    assert not record.is_complete
    record.receive(Update(KEY, Phase.DONE, checkpoint=checkpoint))
    assert (record.is_done(KEY), record.is_complete) == (done, done)
    assert not replace(record, keys=(KEY, OTHER)).is_complete


@pytest.mark.parametrize(("checkpoint", "done"), [(STEPPED, False), (with_test_scores(STEPPED), True)])
def test_a_trajectory_that_stopped_early_is_done_with_its_test_scores(checkpoint: Checkpoint, *, done: bool) -> None:
    record = RunRecord("run", 0.0, keys=(KEY,), num_steps={KEY: 9}, stopping=StoppingRule(target=0.01))
    assert (record.stopped_by(KEY), record.planned_steps(KEY)) == (None, 9)
    record.receive(Update(KEY, Phase.TESTING, checkpoint=checkpoint))
    assert (record.stopped_by(KEY), record.planned_steps(KEY)) == ("reached the target 0.01", 1)
    assert (record.is_done(KEY), record.is_complete) == (done, done)
    assert not replace(record, stopping=StoppingRule()).is_done(KEY)
