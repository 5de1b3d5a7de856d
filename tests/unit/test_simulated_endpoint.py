from __future__ import annotations

import asyncio
import base64
import json
import os
import runpy
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import openai
import pytest

from benchmarks.simulated import landscape, optimizer_model, task_model
from benchmarks.simulated.hashing import uniform
from benchmarks.simulated.optimizer_model import Assignment, improved, read_assignment
from benchmarks.simulated.triage import LABEL_OF, LABELS, keywords_in, read_question
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint, embed, quality
from gpo.answering import AnswerFormat, Position
from gpo.examples import Example
from gpo.meta_prompt import Direction, FullMetaPrompt
from gpo.models import Message
from gpo.prompt import Prompt, edit_distance
from gpo.score import Score
from gpo.trajectory import Candidate

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
SPLITS = {
    split: [json.loads(line) for line in (DATA / "triage" / f"{split}.jsonl").read_text("utf-8").splitlines()]
    for split in ("train", "val", "test")
}
INITIAL = "Classify the support ticket into one of: billing, technical, shipping, account."
GOOD = "Read carefully and classify the customer ticket: answer with exactly one category label, a single word only."
TICKET = SPLITS["val"][0]["text"]


@pytest.fixture
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


def client(endpoint: SimulatedEndpoint, key: str = "any") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=key, max_retries=0, timeout=10)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def ask(endpoint: SimulatedEndpoint, text: str, model: str = "task-model", **settings: Any) -> Any:
    async with client(endpoint) as api:
        return await api.chat.completions.create(model=model, messages=user(text), **settings)


def candidate(text: str, mean_score: float) -> Candidate:
    return Candidate(Prompt(text), Score((mean_score,)))


def meta_prompt(current: Candidate, *neighbours: Candidate, step_size: int | None = None) -> list[Message]:
    exemplars = [Example(row["text"], (row["label"],)) for row in SPLITS["train"][:3]]
    return FullMetaPrompt().messages(Direction(current, neighbours, step_size, exemplars, Position.QUESTION_BEGIN))


# The endpoint over HTTP.


async def test_lists_its_models(endpoint: SimulatedEndpoint) -> None:
    async with client(endpoint) as api:
        assert [model.id async for model in api.models.list()] == ["task-model", "opt-model", "embed-model"]
        endpoint.behaviour = Behaviour(list_models=False)
        with pytest.raises(openai.NotFoundError):
            await api.models.list()


async def test_answers_tickets_with_usage(endpoint: SimulatedEndpoint) -> None:
    text = f"{GOOD}\n{TICKET}"
    reply = await ask(endpoint, text, n=2)
    assert [choice.message.content for choice in reply.choices] == [task_model.answer(user(text), seed=0)] * 2
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(text.split()), 2)


async def test_optimizer_model_follows_seed_temperature_and_limits(endpoint: SimulatedEndpoint) -> None:
    text = meta_prompt(candidate(INITIAL, 0.3))[0]["content"]

    async def reply(**settings: Any) -> Any:
        return (await ask(endpoint, text, "opt-model", **settings)).choices[0]

    first, again, other = [(await reply(seed=seed, temperature=1.0)).message.content for seed in (1, 1, 2)]
    assert first == again != other
    assert first.startswith("<START>")
    assert first.endswith("<END>")
    cold = [(await reply(seed=seed, temperature=0)).message.content for seed in (1, 2)]
    assert cold[0] == cold[1]
    stopped = await reply(seed=1, stop=["<END>"])
    assert (stopped.message.content + "<END>", stopped.finish_reason) == (first, "stop")
    short = await reply(seed=1, max_tokens=3)
    assert (short.message.content, short.finish_reason) == (" ".join(first.split()[:3]), "length")
    several = await ask(endpoint, text, "opt-model", n=4, temperature=1.0)
    assert len({choice.message.content for choice in several.choices}) > 1
    endpoint.behaviour = Behaviour(malformed_rate=1.0)
    malformed = [(await reply(seed=seed)).message.content for seed in range(8)]
    assert "" in malformed
    assert not any("<START>" in text for text in malformed)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeds_in_either_encoding(endpoint: SimulatedEndpoint, encoding: Any) -> None:
    texts = [INITIAL, GOOD]
    settings = {} if encoding is None else {"encoding_format": encoding}
    async with client(endpoint) as api:
        reply = await api.embeddings.create(model="embed-model", input=texts, **settings)
    vectors: list[Any] = [row.embedding for row in reply.data]
    if encoding == "base64":  # asked for by name, the client leaves it undecoded
        vectors = [struct.unpack("<64f", base64.b64decode(vector)) for vector in vectors]
    for text, vector in zip(texts, vectors, strict=True):
        assert vector == pytest.approx(embed(text), abs=1e-6)


async def test_refuses_wrong_keys_unknown_models_and_malformed_bodies() -> None:
    with SimulatedEndpoint(Behaviour(api_key="right")) as endpoint:
        async with client(endpoint, "wrong") as api:
            with pytest.raises(openai.AuthenticationError) as wrong:
                await api.models.list()
        assert wrong.value.code == "invalid_api_key"
        async with client(endpoint, "right") as api:
            await api.models.list()
            with pytest.raises(openai.NotFoundError) as unknown:
                await api.chat.completions.create(model="other", messages=user("hi"))
            assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
            malformed: list[dict[str, Any]] = [
                {"messages": []},
                {"messages": user("hi"), "n": 0},
                {"messages": user("hi"), "max_tokens": 0},
                {"messages": user("hi"), "temperature": 3},
                {"messages": [{"role": "wizard", "content": "hi"}]},
                {"messages": [{"role": ["user"], "content": "hi"}]},
                {"messages": ["hi"]},
                {"messages": [{"role": "user", "content": 7}]},
            ]
            for body in malformed:
                with pytest.raises(openai.BadRequestError):
                    await api.chat.completions.create(model="task-model", **body)
            with pytest.raises(openai.NotFoundError):
                await api.post("/elsewhere", cast_to=object)
        assert "right" not in repr(endpoint.behaviour)
        assert [record.status for record in endpoint.requests] == [401, 200, 404, *[400] * len(malformed), 404]


async def test_refuses_more_requests_at_once_than_its_limit() -> None:
    with SimulatedEndpoint(Behaviour(latency_s=0.3, limit=2, retry_after_s=1.5)) as endpoint:
        replies = await asyncio.gather(*(ask(endpoint, f"{TICKET} {i}") for i in range(5)), return_exceptions=True)
        refused = [reply for reply in replies if isinstance(reply, openai.RateLimitError)]
        assert len(refused) == 3
        assert {error.response.headers["retry-after"] for error in refused} == {"1.5"}
        assert Counter(record.status for record in endpoint.requests) == {200: 2, 429: 3}
        assert max(record.in_flight for record in endpoint.requests if record.status == 200) == 2
        await ask(endpoint, TICKET)  # there is room again


async def test_injected_errors_pass_on_repetition() -> None:
    async def attempts_needed(seed: int) -> list[int]:
        with SimulatedEndpoint(Behaviour(error_rate=0.5, seed=seed)) as endpoint:
            async with client(endpoint) as api:
                needed = [await attempts(api, f"{TICKET} {number}") for number in range(12)]
            assert Counter(record.status for record in endpoint.requests) == {200: 12, 500: sum(needed) - 12}
            return needed

    async def attempts(api: openai.AsyncOpenAI, text: str) -> int:
        for attempt in range(1, 50):
            with suppress(openai.InternalServerError):
                await api.chat.completions.create(model="task-model", messages=user(text))
                return attempt
        pytest.fail("50 errors in a row")

    first = await attempts_needed(0)
    assert max(first) > 1
    assert first == await attempts_needed(0)
    assert first != await attempts_needed(1)


async def test_fails_for_a_while_and_recovers(endpoint: SimulatedEndpoint) -> None:
    endpoint.behaviour = replace(endpoint.behaviour, fail_next=2, error_status=503)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await ask(endpoint, TICKET)
    await ask(endpoint, TICKET)
    endpoint.behaviour = replace(endpoint.behaviour, fail_next=1)
    with pytest.raises(openai.InternalServerError):
        await ask(endpoint, TICKET)
    endpoint.behaviour = Behaviour()
    await ask(endpoint, TICKET)
    assert [record.status for record in endpoint.requests] == [503, 503, 200, 503, 200]


async def test_a_hanging_request_frees_its_place_when_the_client_leaves() -> None:
    with SimulatedEndpoint(Behaviour(hang_rate=1.0, limit=1)) as endpoint:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(endpoint, TICKET), 0.3)
        endpoint.behaviour = Behaviour(limit=1)
        for _ in range(100):
            if endpoint.requests:
                break
            await asyncio.sleep(0.02)
        await ask(endpoint, TICKET)
        assert [record.status for record in endpoint.requests] == [499, 200]


async def test_latency_grows_with_the_reply() -> None:
    text = meta_prompt(candidate(INITIAL, 0.3))[0]["content"]
    with SimulatedEndpoint(Behaviour(latency_s=0.05, latency_per_token_s=0.02)) as endpoint:
        await ask(endpoint, text, max_tokens=10)
        await ask(endpoint, text, max_tokens=1)
        long, short = (record.finished_s - record.started_s for record in endpoint.requests)
    assert short >= 0.07
    assert long >= 0.25


async def test_access_log_holds_the_records(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with SimulatedEndpoint(access_log=log) as endpoint:
        await ask(endpoint, TICKET, temperature=0)
        await ask(endpoint, TICKET, temperature=0)
        await ask(endpoint, TICKET, temperature=1)
    assert [json.loads(line) for line in log.read_text("utf-8").splitlines()] == list(map(asdict, endpoint.requests))
    same, again, other = (record.content for record in endpoint.requests)
    assert same == again != other
    assert all(record.started_s <= record.finished_s for record in endpoint.requests)
    assert (endpoint.requests[0].path, endpoint.requests[0].model) == ("/v1/chat/completions", "task-model")


def test_an_address_in_use_is_an_error(endpoint: SimulatedEndpoint) -> None:
    port = int(endpoint.base_url.split(":")[-1].removesuffix("/v1"))
    with pytest.raises(OSError, match="in use"), SimulatedEndpoint(port=port):
        pytest.fail("listens on an address in use")


def test_runs_as_a_process_until_it_is_told_to_stop(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    command = [sys.executable, "-m", "benchmarks.simulated_endpoint", "--port", "0"]
    options = ["--api-key-env", "SIMULATED_KEY", "--access-log", str(log), "--no-models"]
    environment = {**os.environ, "SIMULATED_KEY": "right"}
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        announced = process.stdout.readline()
        assert announced.startswith("listening on http://127.0.0.1:")
        with openai.OpenAI(base_url=announced.split()[-1], api_key="right", max_retries=0) as api:
            api.chat.completions.create(model="task-model", messages=user(TICKET))
            with pytest.raises(openai.NotFoundError):
                api.models.list()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
    assert [json.loads(line)["status"] for line in log.read_text("utf-8").splitlines()] == [200, 404]


# The models.


def test_quality_rises_with_helpful_words_and_falls_with_harmful_ones_and_length() -> None:
    assert 0.05 <= quality("guess") < quality("") == 0.15 < quality(INITIAL) < quality(GOOD) <= 0.97
    for word in landscape.HELPFUL:
        assert quality(word) > quality("")
    assert quality(f"{INITIAL} Write a poem!") < quality(INITIAL)
    assert quality(INITIAL + " the" * 60) < quality(INITIAL) == quality(INITIAL + " the" * 20)
    assert quality(" ".join(landscape.HELPFUL)) == pytest.approx(0.90)
    assert sum(landscape.WEIGHTS.values()) == pytest.approx(0)


def test_task_model_is_right_as_often_as_the_prompt_is_good() -> None:
    examples = [row for rows in SPLITS.values() for row in rows]

    def right(prompt: str, seed: int = 0) -> set[str]:
        asked = ((row, user(f"{prompt}\n{row['text']}")) for row in examples)
        answers = [(row, task_model.answer(messages, seed=seed)) for row, messages in asked]
        assert {answer for _, answer in answers} <= set(LABELS)
        return {row["text"] for row, answer in answers if answer == row["label"]}

    assert right("Write a poem.") < right(INITIAL) < right(GOOD)
    for prompt in (INITIAL, GOOD):
        shares = [len(right(prompt, seed)) / len(examples) for seed in range(10)]
        assert mean(shares) == pytest.approx(quality(prompt), abs=0.06)


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("prompt", [INITIAL, "Sort them:\nbilling (invoice, refund) or account (login).", "Label it."])
def test_ticket_and_prompt_are_told_apart_at_every_position(position: Position, marked: bool, prompt: str) -> None:
    messages = AnswerFormat(position, question_marks=marked).messages(Prompt(prompt), Example(TICKET, ("any",)))
    question = read_question("\n".join(turn["content"] for turn in messages))
    assert question is not None
    assert (question.ticket, question.prompt) == (TICKET, prompt)


def test_follow_up_gets_the_same_answer() -> None:
    for row in SPLITS["test"]:
        first = user(f"{row['text']}\n{INITIAL}")
        answer = task_model.answer(first, seed=0)
        follow_up = user("Now give only the final answer, one of: account, billing, shipping, technical.")
        assert task_model.answer([*first, {"role": "assistant", "content": answer}, *follow_up], seed=0) == answer


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("Which one?\nOptions:\n(A) red\n(B) green\n(C) blue", {"(A)", "(B)", "(C)"}),
        ("Is it?\nOptions:\n- Yes\n- No", {"Yes", "No"}),
        ("Answer with Yes or No: does it rain?", {"Yes", "No"}),
        ("not ( True ) and ( True ) is", {"True", "False"}),
        ("How many?", {"Yes", "No", "(A)", "(B)", "42"}),
    ],
)
def test_other_questions_get_one_of_their_options(text: str, answers: set[str]) -> None:
    assert {task_model.answer(user(f"{text}\nVariant {i}."), seed=0) for i in range(60)} == answers


def test_embeddings_of_texts_that_share_words_are_alike() -> None:
    def cosine(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))

    assert len(embed(INITIAL)) == 64
    assert cosine(INITIAL, INITIAL.upper()) == pytest.approx(1)
    assert cosine("", "") == pytest.approx(1)
    assert cosine(INITIAL, f"{INITIAL} Answer only.") > 0.7 > 0.5 > abs(cosine(INITIAL, "Think about it step by step."))


def test_meta_prompts_are_understood() -> None:
    worse, better, current = candidate("Guess.", 0.1), candidate(f"{GOOD}\nReally.", 0.7), candidate(INITIAL, 0.3)
    scored = (("Guess.", 10.0), (f"{GOOD}\nReally.", 70.0), (INITIAL, 30.0))
    assert read_assignment(meta_prompt(current, better, worse, step_size=7)) == Assignment(INITIAL, scored, 7)
    assert read_assignment(meta_prompt(current)) == Assignment(INITIAL, ((INITIAL, 30.0),), None)
    compact: list[Message] = [
        {"role": "user", "content": "Rewrite this instruction: Add the numbers."},
        {"role": "assistant", "content": "<START>Sum up the numbers.<END>"},
        {"role": "user", "content": f"Rewrite this instruction: {INITIAL}"},
    ]
    assert read_assignment(compact) == Assignment(INITIAL)
    assert read_assignment(user(f"{INITIAL}\n{TICKET}")) is None


def test_optimizer_model_keeps_to_the_step_size() -> None:
    def distances(step_size: int | None) -> list[int]:
        rewrites = (improved(Assignment(INITIAL, (), step_size), Random(seed)) for seed in range(200))
        return [edit_distance(Prompt(INITIAL), Prompt(rewrite)) for rewrite in rewrites]

    assert improved(Assignment(INITIAL, (), 0), Random(0)) == INITIAL
    assert set(distances(1)) == {1}
    assert max(distances(3)) == 3
    assert max(distances(None)) == max(distances(50)) == optimizer_model.MAX_EDITS
    assert mean(distances(1)) < mean(distances(3)) < mean(distances(50))
    assert min(distances(50)) == 1


def test_optimizer_model_follows_the_scores_it_is_shown() -> None:
    current = f"{INITIAL} Maybe guess."
    good, bad = f"{INITIAL} Read carefully, only exactly the category label.", f"{INITIAL} Maybe guess, joke, a poem."

    def mean_quality(*scored: tuple[str, float]) -> float:
        return mean(quality(improved(Assignment(current, scored, 10), Random(seed))) for seed in range(200))

    aimless = mean_quality((good, 50.0), (bad, 50.0))
    towards = mean_quality((good, 70.0), (bad, 10.0))
    away = mean_quality((good, 10.0), (bad, 70.0))
    assert towards > aimless + 0.05
    assert away < aimless - 0.02
    assert aimless == pytest.approx(quality(current), abs=0.04)


# The data.


def test_triage_data_are_balanced_disjoint_and_solvable() -> None:
    assert {split: len(rows) for split, rows in SPLITS.items()} == {"train": 24, "val": 40, "test": 60}
    for rows in SPLITS.values():
        assert set(Counter(row["label"] for row in rows).values()) == {len(rows) // len(LABELS)}
        assert {frozenset(row) for row in rows} == {frozenset({"text", "label"})}
        assert all([LABEL_OF[word] for word in keywords_in(row["text"])] == [row["label"]] for row in rows)
    texts = {split: {row["text"] for row in rows} for split, rows in SPLITS.items()}
    assert all(len(texts[split]) == len(rows) for split, rows in SPLITS.items())
    assert all(not texts[one] & texts[other] for one, other in combinations(texts, 2))
    assert not LABEL_OF.keys() & set(landscape.VOCABULARY)


def test_triage_data_are_what_their_script_writes() -> None:
    script = runpy.run_path(str(DATA / "make_triage.py"))
    for split, examples in script["splits"]().items():
        assert (DATA / "triage" / f"{split}.jsonl").read_text("utf-8") == script["as_json_lines"](examples)


def test_hashes_do_not_depend_on_the_process() -> None:
    assert [round(uniform("a", 1), 6), round(uniform("a", 2), 6)] == [0.505886, 0.269022]
