"""``gpo score`` reads recorded answers and writes the same lines with their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.commands import RunGpo

ROWS: list[dict[str, Any]] = [
    {"dataset": "bbh", "task": "snarks", "target": "(A)", "answer": "Option A", "reference_score": 0, "model": "m"},
    {"dataset": "gsm8k", "task": "gsm8k", "target": 18, "answer": "It is 18 \u2028.", "id": 7},
    {"dataset": "bbh", "task": "snarks", "target": "(A)", "answer": "(A)", "reference_score": 1},
    {"dataset": "bbh", "task": "navigate", "target": "No", "answer": "It is No", "reference_score": 0, "score": "old"},
    {"dataset": "webnlg", "task": "webnlg", "target": ["a cat", "a dog"], "answer": "a cat", "reference_score": 0.75},
    {"dataset": "bbh", "task": "snarks", "target": "(A)", "answer": "", "odd": "\ud800"},
]
PAPER = [0, 1, 1, 0, pytest.approx(0.75, abs=1e-6), 0]
DEFAULT = [1, 1, 1, 1, 1, 0]


def _write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize(("parser", "scores"), [("paper", PAPER), ("default", DEFAULT)])
def test_each_line_gets_its_score_in_order(gpo: RunGpo, tmp_path: Path, parser: str, scores: list[float]) -> None:
    path = _write(tmp_path, *ROWS)
    finished = gpo("score", path, "--parser", parser, "--output", "scored.jsonl", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    assert finished.stdout == ""
    scored = _read((tmp_path / "scored.jsonl").read_text(encoding="utf-8"))
    assert scored == [{**row, "score": score} for row, score in zip(ROWS, scores, strict=True)]
    assert {path.name for path in tmp_path.iterdir()} == {"answers.jsonl", "scored.jsonl"}


def test_without_a_file_the_lines_go_to_standard_output_and_the_summary_does_not(gpo: RunGpo, tmp_path: Path) -> None:
    finished = gpo("score", _write(tmp_path, *ROWS), cwd=tmp_path)
    assert finished.code == 0
    assert [row["score"] for row in _read(finished.stdout)] == DEFAULT
    one = "mean 100.00% (90% interval: 26.99% to 100.00%)"
    assert finished.stderr.splitlines() == [
        "bbh: 4 answers, mean 75.00% (90% interval: 35.62% to 94.21%), agreement with reference_score 33.33% (1 of 3)",
        f"gsm8k: 1 answer, {one}",
        f"webnlg: 1 answer, {one}, agreement with reference_score 0.00% (0 of 1)",
    ]


def test_the_options_in_a_recorded_input_count_as_answers(gpo: RunGpo, tmp_path: Path) -> None:
    row = {"dataset": "mmlu", "task": "virology", "target": "(B)", "answer": "the dog"}
    path = _write(tmp_path, row, {**row, "input": "Who barks?\n(A) The cat\n(B) The dog"})
    assert [row["score"] for row in _read(gpo("score", path, cwd=tmp_path).stdout)] == [0, 1]


GOOD = json.dumps(ROWS[0])


def _changed(**fields: Any) -> str:
    return json.dumps({name: value for name, value in {**ROWS[0], **fields}.items() if value is not ...})


REFUSED: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "half a line": (GOOD[:-10], (), ("answers.jsonl:2", "not valid JSON", "one complete JSON object")),
    "not an object": ("[]", (), ("answers.jsonl:2", "not an object")),
    "no answer": (_changed(answer=...), (), ("answers.jsonl:2", "'answer'", "add it")),
    "no task": (_changed(task=...), (), ("answers.jsonl:2", "'task'", "add it")),
    "an answer that is not text": (_changed(answer=None), (), ("answers.jsonl:2", "'answer' is null", "quotes")),
    "an empty target": (_changed(target=[]), (), ("answers.jsonl:2", "'target' is empty", "fill it in")),
    "an unknown dataset": (_changed(dataset="imdb"), (), ("answers.jsonl:2", "'imdb'", "choose one of: bbh")),
    "an unknown task": (_changed(task="snark"), (), ("answers.jsonl:2", "'snark'", "choose one of:")),
    "a verdict that is not a number": (_changed(reference_score="yes"), (), ("answers.jsonl:2", "'reference_score'")),
    "an unknown parser": (GOOD, ("--parser", "papers"), ("--parser", "'papers'", "default, paper")),
    "the input as output": (GOOD, ("--output", "./answers.jsonl"), ("--output", "file with the answers", "another")),
    "a folder as output": (GOOD, ("--output", "."), ("--output", "is a folder", "another")),
    "no folder for the output": (GOOD, ("--output", "no/out.jsonl"), ("--output", "does not exist", "another")),
    "a device as output": (GOOD, ("--output", "/dev/null"), ("--output", "not an ordinary file", "another")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_line_and_writes_nothing(gpo: RunGpo, tmp_path: Path, case: str) -> None:
    line, options, words = REFUSED[case]
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{GOOD}\n{line}", encoding="utf-8")
    before = path.read_bytes()
    options = options if "--output" in options else (*options, "--output", "out.jsonl")
    finished = gpo("score", path, *options, cwd=tmp_path)
    assert finished.code == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert all(word in line for word in words), line
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize(
    ("content", "word"), [(None, "does not exist"), (b"", "holds no answer"), (b"\xff", "not UTF-8")]
)
def test_a_file_without_answers_is_refused(gpo: RunGpo, tmp_path: Path, content: bytes | None, word: str) -> None:
    if content is not None:
        (tmp_path / "answers.jsonl").write_bytes(content)
    finished = gpo("score", "answers.jsonl", cwd=tmp_path)
    assert finished.code == 2
    assert finished.stdout == ""
    assert word in finished.stderr
    assert finished.stderr.startswith("gpo: error: FILE")


def test_output_through_a_link_replaces_the_linked_file(gpo: RunGpo, tmp_path: Path) -> None:
    path = _write(tmp_path, *ROWS)
    (tmp_path / "out.jsonl").write_text("old", encoding="utf-8")
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    finished = gpo("score", path, "--output", "link.jsonl", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len(_read((tmp_path / "out.jsonl").read_text(encoding="utf-8"))) == len(ROWS)
