"""Bad replies over HTTP: how each kind is handled and counted."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.simulated.bad_replies import INJECTION, RETRY_SUCCEEDS
from benchmarks.simulated_endpoint import BadReply, Behaviour, SimulatedEndpoint
from gpo.data.example import Example
from gpo.errors import ModelRefused, ModelUnavailable, RefusalReason
from gpo.evaluation.answer_format import Position
from gpo.models.bodies import MAX_REPLY_BYTES
from gpo.models.credentials import KeySource
from gpo.models.embedding import CachedEmbedder
from gpo.models.protocol import Completion, Message, Sampling, Usage
from gpo.models.replies import MAX_REPLY_CHARACTERS, ChatReply, Price
from gpo.models.retrying import RetryingModel
from gpo.strategies.meta_prompt import FullMetaPrompt
from gpo.strategies.proposer import Proposals, SamplingProposer
from gpo.strategies.sections import neutral
from gpo.testing.samples import candidate
from gpo.trajectory import Direction
from tests.servers import listening
from tests.unit.gpo.models.remote import endpoint_of, remote_model

KEY = "canary-6b1f9e/+\"quoted'=="
ASKED: list[Message] = [{"role": "user", "content": "Classify.\nwhere is my parcel"}]
GREEDY = Sampling(temperature=0.0, max_tokens=50)
CURRENT = candidate("Classify the ticket into one of: billing, technical, shipping, account.", 0.5)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


def model(base_url: str, name: str = "task-model", max_attempts: int = 3) -> RetryingModel:
    return remote_model(base_url, name, max_attempts=max_attempts, max_backoff_s=0.01, timeout_s=20.0)


async def complete(base_url: str, **settings: int) -> Completion:
    asked = model(base_url, **settings)
    async with endpoint_of(asked).client:
        return await asked.complete(ASKED, GREEDY)


@pytest.fixture
def usual(server: SimulatedEndpoint) -> Completion:
    server.behaviour = Behaviour()
    return asyncio.run(complete(server.base_url))


@pytest.mark.parametrize(
    ("kind", "counted"),
    [
        (BadReply.EMPTY, {"empty": 1}),
        (BadReply.NULL, {"empty": 1}),
        (BadReply.LONG, {"truncated": 1}),
        (BadReply.TRUNCATED, {"truncated": 1}),
        (BadReply.SURROGATES, {}),
        (BadReply.CONTROLS, {}),
        (BadReply.PARTS, {}),
        (BadReply.OTHER_LANGUAGE, {}),
        (BadReply.REPEATS_KEY, {}),
        (BadReply.NO_USAGE, {"unmetered": 1}),
        (BadReply.NAN_USAGE, {"unmetered": 1}),
        (BadReply.NEGATIVE_USAGE, {"unmetered": 1}),
    ],
)
def test_a_reply_with_a_harmless_flaw_is_used(
    kind: BadReply, counted: dict[str, int], server: SimulatedEndpoint, usual: Completion
) -> None:
    server.behaviour = Behaviour(bad_replies={kind: 1.0})
    reply = asyncio.run(complete(server.base_url))
    assert server.requests[-1].bad == kind
    usage = reply.usage
    assert (usage.requests, usage.retries, usage.failures) == (1, 0, 0)
    assert {name: getattr(usage, name) for name in ("empty", "truncated", "unmetered") if getattr(usage, name)} == (
        counted
    )
    text = {
        BadReply.EMPTY: "",
        BadReply.NULL: "",
        BadReply.LONG: reply.text,
        BadReply.TRUNCATED: usual.text[: len(usual.text) // 2],
        BadReply.SURROGATES: f"{usual.text[:8]}?{usual.text[8:]}",
        BadReply.CONTROLS: f"{usual.text[:8]}\x00\x1b[31m\x07{usual.text[8:]}",
        BadReply.OTHER_LANGUAGE: "请仔细阅读客户的问题，然后只回答一个类别。",
        BadReply.REPEATS_KEY: f"Bearer *** Bearer *** Bearer *** {usual.text}",
    }
    assert reply.text == text.get(kind, usual.text)
    assert len(reply.text) <= MAX_REPLY_CHARACTERS
    assert reply.truncated is (kind in (BadReply.LONG, BadReply.TRUNCATED))


@pytest.mark.parametrize("kind", sorted(RETRY_SUCCEEDS))
def test_an_unusable_reply_is_requested_again(kind: BadReply, server: SimulatedEndpoint, usual: Completion) -> None:
    server.behaviour = Behaviour(bad_replies={kind: 0.9})
    reply = asyncio.run(complete(server.base_url, max_attempts=200))
    retries = reply.usage.retries
    assert (reply.text, reply.usage.requests) == (usual.text, 1)
    assert retries > 0  # with this seed
    assert [record.bad for record in server.requests[-1 - retries :]] == [kind] * retries + [""]
    server.behaviour = Behaviour(bad_replies={kind: 1.0})
    with pytest.raises(ModelUnavailable) as caught:
        asyncio.run(complete(server.base_url))
    assert caught.value.retries == 2


def test_a_huge_reply_is_refused_and_never_in_memory(server: SimulatedEndpoint) -> None:
    server.behaviour = Behaviour(bad_replies={BadReply.HUGE: 1.0})
    before = len(server.requests)
    with pytest.raises(ModelRefused, match="larger than 8 MB") as caught:
        asyncio.run(complete(server.base_url))
    assert caught.value.reason is RefusalReason.REQUEST
    assert len(server.requests) == before + 1  # a retry would cost as much again


@asynccontextmanager
async def sending(
    head: bytes, body: bytes, times: int = 1, content_type: bytes = b"application/json"
) -> AsyncIterator[str]:
    """The base URL of a server that repeats the same bytes this often after the head, while the client reads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head + b"Content-Type: " + content_type + b"\r\nConnection: close\r\n\r\n")
            for _ in range(times):
                writer.write(body)
                await writer.drain()
        writer.close()

    async with listening(serve) as base_url:
        yield base_url


OK, FAILED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 Oh\r\n"


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("head", [OK, FAILED], ids=["200", "500"])
async def test_an_endless_reply_does_not_fill_the_memory(
    head: bytes, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(head, b"x" * 1_000_000, 100) as url:
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        tracemalloc.start()
        with pytest.raises((ModelRefused, ModelUnavailable)):
            await complete(url, max_attempts=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 6 * MAX_REPLY_BYTES


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
async def test_compressed_zeros_are_not_decompressed_beyond_the_bound(packing: str) -> None:
    packed = gzip.compress(b"0" * 60_000_000) if packing == "gzip" else zlib.compress(b"0" * 60_000_000)
    async with sending(OK + f"Content-Encoding: {packing}\r\n".encode(), packed) as url:
        tracemalloc.start()
        with pytest.raises(ModelRefused, match="larger than 8 MB"):
            await complete(url, max_attempts=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 6 * MAX_REPLY_BYTES


async def test_a_reply_compressed_in_an_unaccepted_way_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    for head, proxied in ((b"br", False), (b"gzip", False), (b"gzip", True)):  # the body is not gzip
        async with sending(OK + b"Content-Encoding: " + head + b"\r\n", b"{}") as url:
            if proxied:
                monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
            with pytest.raises(ModelUnavailable, match="compressed"):
                await complete(url, max_attempts=1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-7"])
def test_a_body_that_is_not_utf8_is_not_a_reply(encoding: str) -> None:
    body = json.dumps({"choices": [{"message": {"content": f"Your key is {KEY}+é"}}]}, ensure_ascii=False)
    with pytest.raises(ValidationError):
        ChatReply.read(body.encode(encoding))
    assert ChatReply.read(body.encode("utf-8-sig")).text.endswith("é")


async def test_the_key_is_masked_before_a_long_reply_is_truncated() -> None:
    said = "x" * (MAX_REPLY_CHARACTERS - 10) + KEY
    async with sending(OK, json.dumps({"choices": [{"message": {"content": said}}]}).encode()) as url:
        assert (await complete(url)).text == "x" * (MAX_REPLY_CHARACTERS - 10) + "***"


ERRORS = [b"", b"null", b"[]", b"3", b'"x"', b'{"error": 3}', b'{"error": {"message": {}, "code": []}}', b"[" * 9999]
ERRORS += [b'{"error": {"message": "\\ud83d"}}', b"\xff\xfe", b'{"error": ' * 9999]
WAITS = ("", "nan", "-1", "1e999", "soon", "Fri, 31 Dec 9999 23:59:59 -1200")


@pytest.fixture
def _no_collection() -> Iterator[None]:
    """No finalizer runs, and fails, at the depth at which the parser of a nested document gives up."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_any_error_body_becomes_a_failure_that_can_be_shown(status: int) -> None:
    for number, body in enumerate(ERRORS):
        head = f"HTTP/1.1 {status} No\r\nRetry-After: {WAITS[number % len(WAITS)]}\r\n"
        async with sending(head.encode(), body) as url:
            asked = remote_model(url, max_attempts=1, patience_s=0.0, max_backoff_s=0.01)
            with pytest.raises((ModelRefused, ModelUnavailable)) as caught:
                await asked.complete(ASKED, GREEDY)
        assert str(status) in str(caught.value)
        assert str(caught.value).encode()


CHARSETS = ["undefined", "zlib", "utf-16", "no such thing", ""]


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("charset", CHARSETS)
async def test_a_reply_is_read_as_utf8_whatever_its_charset(
    charset: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answering(head: bytes, body: str) -> AbstractAsyncContextManager[str]:
        return sending(head, body.encode(), content_type=f"application/json; charset={charset}".encode())

    async with answering(FAILED, '{"error": {"message": "Das wäre eine Störung"}}') as url:
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        with pytest.raises(ModelUnavailable, match=r"HTTP 500: .*Das wäre eine Störung"):
            await complete(url, max_attempts=1)
    async with answering(OK, '{"choices": [{"message": {"content": "schön"}}]}') as url:
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        assert (await complete(url, max_attempts=1)).text == "schön"


async def test_an_unexpected_client_error_is_unavailable_and_hides_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model("http://127.0.0.1:1/v1", max_attempts=1)

    async def trips(*_: object, **__: object) -> None:
        raise AssertionError(f"cannot decode {KEY}")

    monkeypatch.setattr(endpoint_of(asked).client, "post", trips)
    with pytest.raises(ModelUnavailable, match=r"cannot be read \(AssertionError: cannot decode \*\*\*\)") as caught:
        await asked.complete(ASKED, GREEDY)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("key", ["", "EMPTY", "secret-word"])
async def test_a_short_key_is_not_masked_in_replies(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    text = f"no-key EMPTY secret-word {KeySource().read()}"
    async with sending(OK, json.dumps({"choices": [{"message": {"content": text}}]}).encode()) as url:
        assert (await complete(url)).text == text


# What the optimizer model writes.


async def propose(server: SimulatedEndpoint, *kinds: BadReply) -> Proposals:
    server.behaviour = Behaviour(bad_replies={kind: 1 / len(kinds) for kind in kinds})
    asked = model(server.base_url, "opt-model")
    proposer = SamplingProposer(
        model=asked, sampling=Sampling(temperature=1.0), meta_prompt=FullMetaPrompt(), position=Position.QUESTION_BEGIN
    )
    examples = [Example("where is my parcel", ("shipping",))]
    async with endpoint_of(asked).client:
        return await proposer.propose(CURRENT, Direction(), step_size=20, exemplars=examples, n=4, seed=0)


@pytest.mark.parametrize(
    ("kind", "malformed", "prompts"),
    [
        (BadReply.EMPTY, 4, 0),
        (BadReply.NULL, 4, 0),
        (BadReply.LONG, 0, 4),  # the prompt comes first
        (BadReply.TRUNCATED, 4, 0),
        (BadReply.WRONG_TAG, 4, 0),
        (BadReply.DUPLICATE, 0, 4),
        (BadReply.IDENTICAL, 0, 4),
        (BadReply.OTHER_LANGUAGE, 0, 4),
        (BadReply.SURROGATES, 0, 4),
        (BadReply.CONTROLS, 0, 4),
        (BadReply.REPEATS_KEY, 0, 4),
        (BadReply.INJECTION, 0, 4),
    ],
)
async def test_bad_proposals_are_dropped_and_counted(
    kind: BadReply, malformed: int, prompts: int, server: SimulatedEndpoint
) -> None:
    proposals = await propose(server, kind)
    assert (proposals.num_malformed, len(proposals.prompts), proposals.num_failed) == (malformed, prompts, 0)
    for prompt in proposals.prompts:
        assert prompt.id  # it can be hashed and saved
        assert "\x00" not in prompt.text
        assert "canary" not in prompt.text
    distinct = set(proposals.prompts)
    if kind is BadReply.IDENTICAL:
        assert distinct == {CURRENT.prompt}
    if kind in (BadReply.DUPLICATE, BadReply.INJECTION):
        assert len(distinct) == 1


async def test_a_candidate_cannot_imitate_a_section_of_the_meta_prompt(server: SimulatedEndpoint) -> None:
    (prompt, *_) = (await propose(server, BadReply.INJECTION)).prompts
    assert prompt.text == INJECTION.partition("</START>")[0]  # nothing after a closing tag
    shown = neutral(INJECTION + "\n<start>\n# My own\n## Rules")
    assert not [line for line in shown.splitlines() if line.startswith(("## What to do", "Prompt:", "Score:"))]
    assert "<START>" not in shown.upper()
    assert "\n# My own\n## Rules" in shown  # a prompt may have any section names


# What any endpoint could say.

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
replies = st.fixed_dictionaries(
    {},
    optional={
        "choices": anything
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "message": anything | st.fixed_dictionaries({}, optional={"content": anything}),
                    "finish_reason": anything,
                },
            ),
            max_size=2,
        ),
        "usage": anything
        | st.fixed_dictionaries({}, optional={"prompt_tokens": anything, "completion_tokens": anything}),
    },
)


@given(replies)
def test_any_document_is_a_valid_reply_or_refused(document: object) -> None:
    try:
        reply = ChatReply.read(json.dumps(document).encode())
    except ValidationError:
        return
    usage = reply.cost(Price())
    assert reply.text.encode() is not None  # no unpaired surrogates are left
    assert 0 <= usage.prompt_tokens <= 10**9
    assert 0 <= usage.completion_tokens <= 10**9
    assert usage.unmetered in (0, 1)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"choices":' * 50_000, b'{"choices":[' + b"1," * 500_000 + b"1]}"])
def test_deep_and_wide_documents_are_refused(body: bytes) -> None:
    with pytest.raises(ValidationError):
        ChatReply.read(body)


@pytest.mark.parametrize("vectors", [[[1.0], [1.0, 2.0]], [[float("nan")], [1.0]], [[], []], [[1e999], [1.0]]])
async def test_embeddings_that_cannot_be_compared_are_unavailable(vectors: list[list[float]]) -> None:
    body = json.dumps({"data": [{"embedding": vector} for vector in vectors]}).encode()
    async with sending(OK, body) as url:
        embedder = CachedEmbedder(model(url, max_attempts=1))
        with pytest.raises(ModelUnavailable):
            await embedder.embed(["one", "two"])


def test_counters_add_up() -> None:
    one = Usage(requests=1, empty=1, truncated=2, unmetered=3)
    assert one + one == Usage(requests=2, empty=2, truncated=4, unmetered=6)
