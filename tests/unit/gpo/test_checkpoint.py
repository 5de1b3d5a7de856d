from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgpack
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpo.checkpoint import SCHEMA_VERSION, Checkpoint, DamagedCheckpoint, decode, encode
from gpo.errors import CheckpointError
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.trajectory import Candidate, Direction, Proposal, Samples, Spending, Step, Trajectory

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
directions = st.builds(Direction, tuples(candidates), tuples(words), words, words)
samples = st.builds(Samples, *[counts] * 4)
proposals = st.builds(Proposal, step_sizes, directions, tuples(prompts), samples, spendings)
steps = st.builds(Step, counts, step_sizes, directions, tuples(candidates), candidates, samples, spendings)
trajectories = st.builds(Trajectory, candidates, tuples(steps), st.none() | proposals, spendings)
evaluations = st.builds(Evaluation, scores, usages, usages)
checkpoints = st.builds(Checkpoint, trajectories, st.dictionaries(st.text(max_size=12), evaluations, max_size=2))

SMALL = Checkpoint(
    Trajectory(Candidate(Prompt("Think. 🤔"), Score((1.0, None, 0.5))), initial_spending=Spending(Usage(requests=3))),
    {},
).with_test(Prompt("Think. 🤔"), Evaluation(Score((1.0, 0.0)), Usage(requests=2, cost_usd=0.5)))


def content() -> dict[str, Any]:
    """What is sealed in the bytes."""
    return msgpack.unpackb(msgpack.unpackb(encode(SMALL))["checkpoint"])


def sealed(version: object = SCHEMA_VERSION, **changes: object) -> bytes:
    """Other content under a checksum that fits it."""
    inner = msgpack.packb({**content(), **changes})
    head = f"{version}:" if version == 4 else f"{version}:0::"
    checksum = blake2b(head.encode() + inner, digest_size=16).digest()
    name = {} if version == 4 else {"of": ""}
    return msgpack.packb({"schema": version, **name, "blake2b": checksum, "checkpoint": inner})


@given(checkpoints)
def test_a_decoded_checkpoint_equals_the_encoded_one(checkpoint: Checkpoint) -> None:
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


def without_partial_scores(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_partial_scores(below) for key, below in value.items() if key != "partial"}
    return [without_partial_scores(below) for below in value] if isinstance(value, list) else value


def test_a_checkpoint_without_partial_scores_is_read() -> None:
    earlier = without_partial_scores(content())
    assert earlier != content()
    assert decode(msgpack.packb({**earlier, "schema": 2})) == SMALL


def test_a_checkpoint_without_a_checksum_is_read() -> None:
    assert decode(msgpack.packb({"schema": 3, **content()})) == SMALL


def test_a_checkpoint_without_its_search_s_name_is_read() -> None:
    assert decode(sealed(4), "triage/0") == SMALL


def test_a_checkpoint_belongs_to_one_search() -> None:
    assert decode(encode(SMALL, "triage/0"), "triage/0") == decode(encode(SMALL, "triage/0")) == SMALL
    with pytest.raises(CheckpointError, match="is that of triage/0, not of triage/1"):
        decode(encode(SMALL, "triage/0"), "triage/1")


def test_a_checkpoint_without_a_judge_s_usage_is_read() -> None:
    earlier = content()
    (evaluation,) = earlier["test"].values()
    del evaluation["judge"]
    assert decode(msgpack.packb({"schema": 2, **earlier})) == SMALL


def test_an_evaluation_on_test_is_added_under_the_prompt_and_changes_nothing_else() -> None:
    evaluation = Evaluation(Score((1.0,)), Usage())
    more = SMALL.with_test(Prompt("other"), evaluation)
    assert more.test == {**SMALL.test, Prompt("other").id: evaluation}
    assert more.trajectory is SMALL.trajectory
    assert list(SMALL.test) == [Prompt("Think. 🤔").id]


@pytest.mark.parametrize("length", range(0, len(encode(SMALL)), 7))
def test_cut_bytes_are_refused(length: int) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        decode(encode(SMALL)[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(encode(SMALL) + b"\x00", "damaged", id="more than one value"),
        pytest.param(sealed(SCHEMA_VERSION + 1), f"schema version {SCHEMA_VERSION + 1}", id="a later version"),
        pytest.param(sealed(0), "schema version 0, this program reads 2, 3, 4 and 5", id="too early a version"),
        pytest.param(msgpack.packb(content()), "damaged: it names no schema version", id="no version"),
        pytest.param(msgpack.packb({**content(), "schema": SCHEMA_VERSION}), "damaged", id="no checksum"),
        pytest.param(msgpack.packb([1, 2]), "damaged: it names no schema version", id="no map"),
        pytest.param(msgpack.packb({1: 2}), "damaged", id="a key that is no text"),
        pytest.param(sealed(trajectory={}), r"damaged at trajectory\.initial: Field required", id="a missing field"),
        pytest.param(sealed(trajectory=None), "damaged at trajectory", id="a missing trajectory"),
        pytest.param(sealed(test=3), "damaged at test", id="a wrong type"),
        pytest.param(b"", "damaged", id="nothing"),
        pytest.param(b"PK\x03\x04 no checkpoint at all", "damaged", id="another format"),
    ],
)
def test_an_error_says_what_is_wrong_with_the_bytes(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        decode(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        decode(data)


@given(st.lists(st.tuples(st.integers(0, len(encode(SMALL)) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_are_never_read(changes: list[tuple[int, int]]) -> None:
    data = bytearray(encode(SMALL))
    for position, byte in changes:
        data[position] = byte
    assume(bytes(data) != encode(SMALL))
    with pytest.raises(CheckpointError):
        decode(bytes(data))


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_counts_as_damage(bit: int) -> None:
    for position in range(len(encode(SMALL))):
        data = bytearray(encode(SMALL))
        data[position] ^= 1 << bit
        with pytest.raises(DamagedCheckpoint):
            decode(bytes(data))
