from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.checkpoint import SCHEMA_VERSION, Checkpoint, DamagedCheckpoint, _seal, decode, encode
from gpo.errors import CheckpointError
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.trajectory import Candidate, Direction, Failure, Proposal, Samples, Spending, Step, Trajectory

counts = st.integers(0, 2**40)
usages = st.builds(Usage, *[counts] * 6, st.floats(0, 1e6))
prompts = st.text().map(Prompt)
verdicts = st.lists(st.none() | st.floats(0, 1), max_size=5).map(tuple)
scores = st.builds(Score, verdicts, st.none() | st.builds(Partial, st.integers(1, 2**40), st.floats(0, 1)))
candidates = st.builds(Candidate, prompts, scores, counts)
spendings = st.builds(Spending, usages, usages, usages)
step_sizes = st.none() | st.integers(1, 500)


def tuples(strategy: st.SearchStrategy, max_size: int = 3) -> st.SearchStrategy:
    return st.lists(strategy, max_size=max_size).map(tuple)


words = st.none() | st.text(max_size=20)
failures = st.builds(Failure, *[st.text(max_size=20)] * 4)
directions = st.builds(Direction, tuples(candidates), tuples(words), words, words, tuples(failures))
samples = st.builds(Samples, *[counts] * 4)
proposals = st.builds(Proposal, step_sizes, directions, tuples(prompts), samples, spendings, st.booleans())
steps = st.builds(
    Step,
    counts,
    step_sizes,
    directions,
    tuples(candidates),
    candidates,
    samples,
    spendings,
    tuples(prompts),
    st.booleans(),
)
trajectories = st.builds(Trajectory, candidates, tuples(steps), st.none() | proposals, spendings)
evaluations = st.builds(Evaluation, scores, usages, usages)
checkpoints = st.builds(Checkpoint, trajectories, st.dictionaries(st.text(max_size=12), evaluations, max_size=2))

SMALL = Checkpoint(
    Trajectory(Candidate(Prompt("Think. 🤔"), Score((1.0, None, 0.5))), initial_spending=Spending(Usage(requests=3))),
    {},
).with_test(Prompt("Think. 🤔"), Evaluation(Score((1.0, 0.0)), Usage(requests=2, cost_usd=0.5)))


def content() -> dict[str, Any]:
    """The content of a checkpoint, as plain values."""
    return msgpack.unpackb(msgpack.unpackb(encode(SMALL))["checkpoint"])


def sealed(version: int = SCHEMA_VERSION, **changes: object) -> bytes:
    """Other content with a checksum that matches."""
    return _seal(msgpack.packb({**content(), **changes}), "", version)


@given(checkpoints)
def test_decodes_to_what_was_encoded(checkpoint: Checkpoint) -> None:
    assert decode(encode(checkpoint)) == checkpoint


def test_cached_properties_are_not_encoded() -> None:
    fresh = decode(encode(SMALL))
    before = encode(fresh)
    assert (fresh.trajectory.best.prompt.id, fresh.trajectory.initial.score.mean) in {(Prompt("Think. 🤔").id, 0.75)}
    assert encode(fresh) == before


def test_spending_includes_the_judge_s_calls_on_test() -> None:
    judged = Evaluation(Score((1.0,)), Usage(requests=1), judge=Usage(requests=4))
    more = SMALL.with_test(Prompt("other"), judged).spending
    assert more == SMALL.spending + Spending(task=Usage(requests=1), judge=Usage(requests=4))


def test_a_checkpoint_of_another_search_is_refused() -> None:
    assert decode(encode(SMALL, "triage/0"), "triage/0") == decode(encode(SMALL, "triage/0")) == SMALL
    with pytest.raises(CheckpointError, match="belongs to triage/0, not to triage/1"):
        decode(encode(SMALL, "triage/0"), "triage/1")


def test_an_evaluation_on_test_is_added_under_the_prompt_and_changes_nothing_else() -> None:
    evaluation = Evaluation(Score((1.0,)), Usage())
    more = SMALL.with_test(Prompt("other"), evaluation)
    assert more.test == {**SMALL.test, Prompt("other").id: evaluation}
    assert more.trajectory is SMALL.trajectory
    assert list(SMALL.test) == [Prompt("Think. 🤔").id]


@pytest.mark.parametrize("length", range(0, len(encode(SMALL)), 7))
def test_truncated_bytes_are_refused(length: int) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        decode(encode(SMALL)[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(encode(SMALL) + b"\x00", "damaged", id="more than one value"),
        pytest.param(sealed(SCHEMA_VERSION + 1), f"schema version {SCHEMA_VERSION + 1}", id="a later version"),
        pytest.param(sealed(4), "schema version 4, this program reads 5; resume with", id="an earlier version"),
        pytest.param(msgpack.packb({"schema": 3, **content()}), "schema version 3", id="an unsealed version"),
        pytest.param(msgpack.packb(content()), "damaged: it names no schema version", id="no version"),
        pytest.param(msgpack.packb({**content(), "schema": SCHEMA_VERSION}), "damaged", id="no checksum"),
        pytest.param(msgpack.packb([1, 2]), "damaged: it names no schema version", id="not a map"),
        pytest.param(msgpack.packb({1: 2}), "damaged", id="a key that is not text"),
        pytest.param(sealed(trajectory={}), r"damaged at trajectory\.initial: Field required", id="a missing field"),
        pytest.param(sealed(trajectory=None), "damaged at trajectory", id="a missing trajectory"),
        pytest.param(sealed(test=3), "damaged at test", id="a wrong type"),
        pytest.param(b"", "damaged", id="empty"),
        pytest.param(b"PK\x03\x04 no checkpoint at all", "damaged", id="another format"),
    ],
)
def test_the_error_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        decode(data)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_damage_and_never_another_version(bit: int) -> None:
    for position in range(len(encode(SMALL))):
        data = bytearray(encode(SMALL))
        data[position] ^= 1 << bit
        with pytest.raises(DamagedCheckpoint):
            decode(bytes(data))
