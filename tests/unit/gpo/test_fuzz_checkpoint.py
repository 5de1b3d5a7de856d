"""Any bytes are decoded or refused with a ``CheckpointError``. GPO_FUZZ_EXAMPLES sets how many are tried."""

from __future__ import annotations

import copy
import os
from typing import Any

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpo.checkpoint import Checkpoint, _seal, decode, encode
from gpo.errors import CheckpointError
from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.trajectory import Candidate, Direction, Failure, Proposal, Samples, Spending, Step, Trajectory

EXAMPLES = int(os.environ.get("GPO_FUZZ_EXAMPLES", "20"))
fuzzed = settings(max_examples=5 * EXAMPLES, suppress_health_check=list(HealthCheck))

ONE = Candidate(Prompt("Think. 🤔"), Score((1.0, None, 0.5)))
TWO = Candidate(Prompt("Reason."), Score((0.0, None, None), Partial(2, 0.25)), 3)
WHERE = Direction((ONE, TWO), (None, "why"), "because", "so far", (Failure("2 + 2", "4", "Five.", "read 5"),))
STEP = Step(0, 50, WHERE, (TWO,), ONE, Samples(1, 2, 3, 4), Spending(Usage(requests=3, cost_usd=0.5)))
INTACT = Checkpoint(
    Trajectory(ONE, (STEP,), Proposal(None, WHERE, (Prompt("Next."),), Samples(), Spending())), {}
).with_test(Prompt("Think. 🤔"), Evaluation(Score((1.0, 0.0)), Usage(requests=2, truncated=1)))
BYTES = encode(INTACT)
READ: list[Any] = []
CONTENT = msgpack.unpackb(msgpack.unpackb(BYTES)["checkpoint"])

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def is_read(data: bytes) -> bool:
    """Whether the bytes are a checkpoint, which must then be usable and encode to the same value."""
    try:
        checkpoint = decode(data)
    except CheckpointError as error:
        return not str(error)  # a message is required
    trajectory = checkpoint.trajectory
    assert trajectory.best in trajectory.history
    assert checkpoint.spending is not None
    assert trajectory.reflections is not None
    assert encode(decode(encode(checkpoint))) == encode(checkpoint)
    return True


@fuzzed
@given(st.binary(max_size=100))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert not is_read(data)


@fuzzed
@given(values)
def test_random_documents_are_refused(document: Any) -> None:
    assert not is_read(msgpack.packb(document))


@fuzzed
@given(st.lists(st.tuples(st.integers(0, len(BYTES) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_handled(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(BYTES)
    for node, byte in changes:
        damaged[node] = byte
    is_read(bytes(damaged))


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    document = copy.deepcopy(CONTENT)
    for _ in range(draw(st.integers(1, 3))):
        node = document
        while True:
            keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and draw(st.integers(0, 4)):
                node = node[key]
                continue
            if draw(st.booleans()):
                node[key] = draw(values)
            else:
                del node[key]
            break
    return document


@fuzzed
@given(mutations())
def test_changed_content_with_a_valid_checksum_is_handled(document: Any) -> None:
    if is_read(_seal(msgpack.packb(document), "")):
        READ.append(document)


def test_some_mutations_are_read() -> None:
    """Shows that the test above gets past the checksum."""
    test_changed_content_with_a_valid_checksum_is_handled()
    assert READ


def test_deep_and_wide_documents_are_refused() -> None:
    for data in (b"\x91" * 100_000, b"\x81\xa1a" * 100_000, *(bytes([kind]) + b"\xff" * 4 for kind in range(256))):
        assert not is_read(data)
