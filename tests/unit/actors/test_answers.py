"""Recorded answers: which ones, in which files, and what damages them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from actors.answers import AnswerLog, RecordedAnswer, RecordingEvaluator, name_of, read_answers, recorded_prompts
from actors.folder import Folder
from actors.search import SearchKey
from gpo.data.task import Split
from gpo.evaluation.evaluator import Answered, Evaluation
from gpo.evaluation.program_calls import Call
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Flaws, Score
from gpo.trajectory import Spending

KEY = SearchKey("desk", 3)
ONE, OTHER = Prompt("one"), Prompt("other")
ANSWERS = (
    Answered(
        "billing", 1.0, Spending(task=Usage(requests=1, prompt_tokens=5, completion_tokens=2)), seconds=0.1234, read="b"
    ),
    Answered("", 0.0, Spending(task=Usage(cached=1, cached_tokens=9)), flaws=Flaws(empty=1), reason="it is empty"),
    Answered("", None, Spending(judge=Usage(failures=1, prompt_tokens=600)), problem="HTTP 503"),
)


def log(folder: Path, **settings: int) -> AnswerLog:
    given = {"max_bytes": 1_000_000, "writes_all": False, **settings}
    return AnswerLog(Folder.at(str(folder)), KEY, max_bytes=given["max_bytes"], writes_all=bool(given["writes_all"]))


def recorded(folder: Path) -> list[RecordedAnswer]:
    return list(read_answers(Folder.at(str(folder)), KEY))


async def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    answers = log(tmp_path)
    answers.add(ONE, Split.VAL, [4, 7, 9], ANSWERS)
    await answers.write("step-00000", [ONE])
    assert recorded(tmp_path) == [
        RecordedAnswer(ONE.id, Split.VAL, 4, "billing", 1.0, tokens=7, seconds=0.123, read="b"),
        RecordedAnswer(ONE.id, Split.VAL, 7, "", 0.0, "it is empty", flaw="empty", tokens=9, is_cached=True),
        RecordedAnswer(ONE.id, Split.VAL, 9, "", None, problem="HTTP 503", tokens=600),
    ]


async def test_the_calls_of_a_program_are_read_again(tmp_path: Path) -> None:
    sent = {"messages": [{"role": "user", "content": "x" * 9_000}, {"role": "tool", "content": ["\ud800"]}, "odd"]}
    reply = {"choices": [{"message": {"tool_calls": [{"function": {"name": "find", "arguments": "{}"}}, 3]}}]}
    call = Call("plan", sent, reply, Usage(prompt_tokens=5, completion_tokens=2), 0.25).record()
    assert (call.sent[0][1][:3], len(call.sent[0][1]) <= 4_000, call.reply) == ("xxx", True, "calls find({})")
    assert [role for role, _ in call.sent] == ["user", "tool", ""]
    embedded = Call("", {"input": ["a", "b"]}, {"data": []}, Usage(), 0.1).record()
    assert (embedded.sent, embedded.reply) == ((("", '["a", "b"]'),), "(no text)")
    answers = log(tmp_path)
    answers.add(ONE, Split.VAL, None, [replace(ANSWERS[0], calls=(call, embedded))])
    await answers.write("step-00000", [ONE])
    assert recorded(tmp_path)[0].calls == (call, embedded)


async def test_answers_of_prompts_that_are_chosen_later_are_written_then(tmp_path: Path) -> None:
    answers = log(tmp_path)
    answers.add(ONE, Split.VAL, None, ANSWERS[:1])
    answers.add(OTHER, Split.VAL, None, ANSWERS[:1])
    await answers.write("step-00001", [OTHER, OTHER])
    assert {row.prompt for row in recorded(tmp_path)} == {OTHER.id}
    answers.add(ONE, Split.VAL, [1], ANSWERS[1:2])
    await answers.write("step-00002", [ONE, OTHER])
    assert [(row.prompt, row.index) for row in recorded(tmp_path)] == [(OTHER.id, 0), (ONE.id, 0), (ONE.id, 1)]


async def test_all_answers_are_written_if_asked_for(tmp_path: Path) -> None:
    answers = log(tmp_path, writes_all=1)
    answers.add(ONE, Split.VAL, None, ANSWERS[:1])
    answers.add(OTHER, Split.VAL, None, ANSWERS[:1])
    await answers.write("step-00001", [OTHER])
    assert {row.prompt for row in recorded(tmp_path)} == {ONE.id, OTHER.id}


async def test_a_repeated_step_replaces_its_file(tmp_path: Path) -> None:
    for answer in ANSWERS[:2]:  # a process was killed before it saved the checkpoint
        answers = log(tmp_path)
        answers.add(ONE, Split.VAL, None, [answer])
        await answers.write("step-00001", [ONE])
    assert [row.answer for row in recorded(tmp_path)] == [""]


async def test_a_reader_decompresses_only_the_blocks_of_wanted_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.answers._BLOCK", 1)  # a block for each answer
    answers = log(tmp_path, writes_all=1)
    for prompt in (ONE, OTHER):
        answers.add(prompt, Split.VAL, None, ANSWERS)
    await answers.write("step-00001", [])
    folder, path = Folder.at(str(tmp_path)), tmp_path / name_of(KEY) / "step-00001.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()  # the file as a whole is JSON Lines
    assert [ONE.id in line for line in lines[1:]] == [True] * 3 + [False] * 3
    assert recorded_prompts(folder, KEY) == {ONE.id: 3, OTHER.id: 3}
    read: list[bytes] = []
    decompress = gzip.decompress
    monkeypatch.setattr("actors.answers.gzip.decompress", lambda block: read.append(block) or decompress(block))
    found = list(read_answers(folder, KEY, [OTHER.id]))
    assert ([row.prompt for row in found], len(read)) == ([OTHER.id] * 3, 3)


async def test_a_prompt_that_is_chosen_after_a_kill_has_all_its_answers(tmp_path: Path) -> None:
    answers = log(tmp_path)
    answers.add(ONE, Split.VAL, [0], ANSWERS[:1])
    answers.add(OTHER, Split.VAL, [0], ANSWERS[:1])
    await answers.write("step-00001", [ONE])
    answers.add(OTHER, Split.VAL, [1], ANSWERS[1:2])
    answers.add(ONE, Split.VAL, [2], ANSWERS[:1])
    await answers.write("step-00002", [])
    assert {row.prompt for row in recorded(tmp_path)} == {ONE.id}
    for name in ("step-00003", "step-00004"):  # each attempt is killed after it has written a step
        answers = log(tmp_path)
        await answers.restore()
        await answers.write(name, [OTHER])
        assert [row.index for row in recorded(tmp_path) if row.prompt == OTHER.id] == [0, 1]
    answers = log(tmp_path)
    await answers.restore()
    await answers.write("step-00005", [ONE])
    await answers.end()
    assert [row.index for row in recorded(tmp_path) if row.prompt == ONE.id] == [0, 2]
    assert not list((tmp_path / name_of(KEY)).glob("*not-chosen*"))


async def test_the_bound_on_bytes_ends_the_recording_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = log(tmp_path, max_bytes=300)
    for number in range(4):
        answers.add(ONE, Split.VAL, [number], ANSWERS[:1])
        await answers.write(f"step-{number:05}", [ONE])
    assert [row.index for row in recorded(tmp_path)] == [0]
    assert caplog.text.count("record.max_bytes is reached: no more answers of desk/3 are recorded") == 1


async def test_a_folder_that_cannot_be_written_ends_the_recording_and_not_the_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "desk").write_text("a file in the way")
    answers = log(tmp_path)
    for _ in range(2):
        answers.add(ONE, Split.VAL, None, ANSWERS)
        await answers.write("step-00000", [ONE])
    assert caplog.text.count("no more answers of desk/3 are recorded") == 1


async def test_a_damaged_file_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = log(tmp_path)
    for number in range(2):
        answers.add(ONE, Split.VAL, [number], ANSWERS[:1])
        await answers.write(f"step-{number:05}", [ONE])
    path = tmp_path / name_of(KEY) / "step-00000.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert [row.index for row in recorded(tmp_path)] == [1]
    assert "is damaged, and left out" in caplog.text


def test_a_search_without_answers_has_none(tmp_path: Path) -> None:
    assert recorded(tmp_path) == []


async def test_a_long_answer_loses_its_middle_and_half_a_character_is_replaced(tmp_path: Path) -> None:
    answers = log(tmp_path)
    answers.add(ONE, Split.TEST, None, [Answered("x" * 50_000, 0.0, Spending()), Answered("\ud83d", 0.0, Spending())])
    await answers.write("test", [ONE])
    first, second = recorded(tmp_path)
    assert (len(first.answer), second.answer) == (20_000, "?")


class Evaluator:
    """Evaluates with these answers."""

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        await asyncio.sleep(0)
        return [Evaluation(Score((1.0, 0.0, None)), Usage(requests=2), answers=ANSWERS) for _ in prompts]


async def test_evaluations_lose_their_answers_to_the_log(tmp_path: Path) -> None:
    answers = log(tmp_path)
    evaluations = await RecordingEvaluator(Evaluator(), answers).evaluate([ONE, OTHER], Split.VAL)
    assert evaluations == [Evaluation(Score((1.0, 0.0, None)), Usage(requests=2))] * 2
    await answers.write("step-00000", [ONE, OTHER])
    assert [(row.prompt, row.index) for row in recorded(tmp_path)] == [
        (prompt.id, index) for prompt in (ONE, OTHER) for index in range(3)
    ]
