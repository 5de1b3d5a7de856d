"""The benchmarks in the files that their authors publish; what the files hold is made up here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from gpo.data.benchmarks import BENCHMARKS
from gpo.data.splits import LoadedTask, require_disjoint
from gpo.data.task import Split
from gpo.errors import ConfigError


def loaded(root: Path, benchmark: str, task: str | None) -> LoadedTask:
    return BENCHMARKS[benchmark].load(root, task, where="tasks[0].data")


def sizes(task: LoadedTask) -> list[int]:
    return [len(task.splits[split]) for split in Split] + [len(task.few_shot or ())]


def require_held_out(task: LoadedTask) -> None:
    require_disjoint({**{str(split): task.splits[split] for split in Split}, "few": task.few_shot or ()}, where="data")


def refusal(root: Path, benchmark: str, task: str | None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loaded(root, benchmark, task)
    assert caught.value.remedy
    return caught.value


def bbh(root: Path, count: int, **changes: Any) -> Path:
    examples = [{"input": f"Question {index}?", "target": "Yes" if index % 2 else "No"} for index in range(count)]
    root.mkdir(parents=True, exist_ok=True)
    path = root / "navigate.json"
    path.write_text(json.dumps({"canary": "none", "examples": examples, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize(("count", "expected"), [(250, [48, 48, 144, 5]), (187, [35, 35, 107, 5]), (20, [2, 2, 6, 5])])
def test_bbh_has_the_split_sizes_of_the_reference_runs(count: int, expected: list[int], tmp_path: Path) -> None:
    bbh(tmp_path / "bbh", count)
    task = loaded(tmp_path, "bbh", "navigate")
    assert sizes(task) == expected
    require_held_out(task)
    assert task == loaded(tmp_path / "bbh", "bbh", "navigate")
    assert [example.input for example in task.splits[Split.TEST]] != sorted(
        example.input for example in task.splits[Split.TEST]
    )


def test_questions_that_bbh_repeats_are_used_once(tmp_path: Path) -> None:
    path = bbh(tmp_path, 100)
    document = json.loads(path.read_text(encoding="utf-8"))
    document["examples"] *= 2
    path.write_text(json.dumps(document), encoding="utf-8")
    assert sum(sizes(loaded(tmp_path, "bbh", "navigate"))) == 95


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        ('{"examples": [\n{"input": "a", "tar', "tasks[0].data.root (navigate.json:2)", "not valid JSON"),
        ('{"rows": []}', "tasks[0].data.root (navigate.json)", "no list of objects named examples"),
        ('{"examples": ["a"]}', "tasks[0].data.root (navigate.json)", "no list of objects named examples"),
        ("[]", "tasks[0].data.root (navigate.json)", "no list of objects named examples"),
        ("[" * 100_000, "tasks[0].data.root (navigate.json)", "not valid JSON"),
        (
            '{"examples": [{"input": "a", "target": "b"}, {"input": "c"}]}',
            "tasks[0].data.root (navigate.json: example 2)",
            "there is no column 'target'",
        ),
        ('{"examples": [{"input": "a", "target": "b"}]}', "tasks[0].data.root", "contains only 1 different examples"),
    ],
)
def test_a_damaged_file_of_bbh_is_an_error(content: str, place: str, problem: str, tmp_path: Path) -> None:
    bbh(tmp_path, 0).write_text(content, encoding="utf-8")
    error = refusal(tmp_path, "bbh", "navigate")
    assert error.field == place
    assert problem in error.problem


def test_a_missing_task_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    bbh(tmp_path / "bbh", 20)
    assert "choose one of: navigate" in str(refusal(tmp_path, "bbh", "snarks"))


def test_the_folders_of_the_reference_runs_take_precedence(tmp_path: Path) -> None:
    bbh(tmp_path, 250)
    (tmp_path / "navigate").mkdir()
    for file in ("train", "eval", "test"):
        line = json.dumps({"input": file, "target": "Yes"})
        (tmp_path / "navigate" / f"{file}.jsonl").write_text(line, encoding="utf-8")
    assert sizes(loaded(tmp_path, "bbh", "navigate")) == [1, 1, 1, 0]


def mmlu(folder: Path, **counts: int) -> Path:
    for part, count in {"dev": 5, "val": 11, "test": 100, **counts}.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        with (folder / part / f"anatomy_{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [f'{part} {index}, "why"?\nSay.', "one", "two, or so", "3", "", "ABCD"[index % 4]]
                for index in range(count)
            )
    return folder


@pytest.mark.parametrize("below", [".", "data", "mmlu", "mmlu/data"])
def test_mmlu_has_the_split_sizes_of_the_reference_runs_and_its_dev_as_few_shot_examples(
    below: str, tmp_path: Path
) -> None:
    mmlu(tmp_path / below)
    task = loaded(tmp_path, "mmlu", "anatomy")
    assert sizes(task) == [20, 20, 71, 5]
    require_held_out(task)
    first = task.splits[Split.TEST][0]
    assert first.input.startswith("test ")
    assert first.input.endswith(', "why"?\nSay.\n(A) one\n(B) two, or so\n(C) 3\n(D) ')
    assert [example.target for example in (task.few_shot or ())] == ["(A)", "(B)", "(C)", "(D)", "(A)"]
    drawn = [example.input.split()[0] for split in (Split.TRAIN, Split.VAL) for example in task.splits[split]]
    assert (drawn.count("val"), drawn.count("test")) == (11, 29)
    assert {example.input.split()[0] for example in task.splits[Split.VAL]} == {"val", "test"}
    assert task == loaded(tmp_path, "mmlu", "anatomy")


@pytest.mark.parametrize(
    ("val", "test", "expected"), [(170, 30, [20, 20, 30, 5]), (40, 1, [20, 20, 1, 5]), (1, 40, [20, 20, 1, 5])]
)
def test_mmlu_takes_from_its_test_only_the_examples_missing_in_val(
    val: int, test: int, expected: list[int], tmp_path: Path
) -> None:
    mmlu(tmp_path, val=val, test=test)
    task = loaded(tmp_path, "mmlu", "anatomy")
    assert sizes(task) == expected
    require_held_out(task)


@pytest.mark.parametrize(("val", "test"), [(1, 1), (11, 29), (1, 39)])
def test_files_of_mmlu_with_too_few_lines_are_an_error(val: int, test: int, tmp_path: Path) -> None:
    mmlu(tmp_path, val=val, test=test)
    error = refusal(tmp_path, "mmlu", "anatomy")
    assert f"only {val + test} different questions in val and test, 41 are needed" in error.problem


@pytest.mark.parametrize(
    ("part", "content", "place", "problem"),
    [
        ("val", "q,1,2,3,4,A\nq,1,2,3,A\n", "tasks[0].data.root (anatomy_val.csv:2)", "there are 5 columns"),
        ("val", "q,1,2,3,4,A\nq,1,", "tasks[0].data.root (anatomy_val.csv:2)", "there are 3 columns"),
        ("dev", "q,1,2,3,4,E\n", "tasks[0].data.root (anatomy_dev.csv:1)", "the answer 'E' is not A, B, C or D"),
        ("dev", "q,1,2,3,4,AB\n", "tasks[0].data.root (anatomy_dev.csv:1)", "the answer 'AB' is not A, B, C or D"),
        ("test", 'q,1,2,3,4,A\n"q,1,2,3,4,A\n', "tasks[0].data.root (anatomy_test.csv:2)", "there are 1 columns"),
        (
            "test",
            "question,A,B,C,D,answer\n",
            "tasks[0].data.root (anatomy_test.csv:1)",
            "the answer 'answer' is not A, B, C or D",
        ),
        ("test", " ,1,2,3,4,A\n", "tasks[0].data.root (anatomy_test.csv:1)", "the question is empty"),
        (
            "test",
            "a" * 200_000 + ",1,2,3,4,E\n",
            "tasks[0].data.root (anatomy_test.csv:1)",
            "the answer 'E' is not A, B, C or D",
        ),
        ("test", "", "tasks[0].data.root", "contains no example"),
    ],
)
def test_a_damaged_file_of_mmlu_is_an_error(part: str, content: str, place: str, problem: str, tmp_path: Path) -> None:
    (mmlu(tmp_path) / part / f"anatomy_{part}.csv").write_text(content, encoding="utf-8")
    error = refusal(tmp_path, "mmlu", "anatomy")
    assert error.field == place
    assert problem in error.problem


def test_shown_examples_of_mmlu_that_its_test_repeats_are_dropped(tmp_path: Path) -> None:
    folder = mmlu(tmp_path)
    dev, test = (mmlu(folder, val=60) / part / f"anatomy_{part}.csv" for part in ("dev", "test"))
    repeated = 'held out,1,2,3,4,A\n"shown, too",1,2,3,4,B\n'
    dev.write_text(repeated + "own,1,2,3,4,C\n", encoding="utf-8")
    test.write_text(repeated, encoding="utf-8")
    assert [example.input[:3] for example in (loaded(tmp_path, "mmlu", "anatomy").few_shot or ())] == ["own"]


def gsm8k(folder: Path, train: int = 300, test: int = 20, answer: str = "So 2 + 3 = <<2+3=5>>5.\n#### 1,005") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("test", test)):
        rows = [{"question": f"{part} {index}?", "answer": answer} for index in range(count)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.mark.parametrize("below", [".", "gsm8k"])
def test_gsm8k_keeps_its_test_and_divides_its_train(below: str, tmp_path: Path) -> None:
    gsm8k(tmp_path / below)
    task = loaded(tmp_path, "gsm8k", None)
    assert sizes(task) == [100, 100, 20, 5]
    require_held_out(task)
    assert {example.targets for examples in task.splits.values() for example in examples} == {("1005",)}
    assert task == loaded(tmp_path, "gsm8k", "gsm8k")


@pytest.mark.parametrize(
    ("answer", "target"),
    [("#### 7", "7"), ("a\n####-3.5 \n", "-3.5"), ("#### 1\n#### 2", "2"), ("####12,345,678", "12345678")],
)
def test_the_target_of_gsm8k_is_the_number_alone(answer: str, target: str, tmp_path: Path) -> None:
    gsm8k(tmp_path, answer=answer)
    assert loaded(tmp_path, "gsm8k", None).splits[Split.TEST][0].targets == (target,)


@pytest.mark.parametrize(
    ("file", "line", "place", "problem"),
    [
        ("train", '{"question": "q?", "answ', "tasks[0].data.root (train.jsonl:301)", "not valid JSON"),
        ("test", '{"question": "q?"}', "tasks[0].data.root (test.jsonl:21)", "the columns are: question"),
        ("test", '{"question": "", "answer": "#### 1"}', "tasks[0].data.root (test.jsonl:21)", "no texts"),
        ("test", '{"question": "q?", "answer": "It is 7."}', "tasks[0].data.root (test.jsonl:21)", "'It is 7.' is not"),
        ("test", '{"question": "q?", "answer": "#### ,"}', "tasks[0].data.root (test.jsonl:21)", "'#### ,' is not"),
        ("test", '{"question": "q?", "answer": "#### ٣"}', "tasks[0].data.root (test.jsonl:21)", "is not #### and"),
        ("test", '{"question": "q?", "answer": "#### 7\\nSo."}', "tasks[0].data.root (test.jsonl:21)", "'So.' is not"),
    ],
)
def test_a_damaged_file_of_gsm8k_is_an_error(file: str, line: str, place: str, problem: str, tmp_path: Path) -> None:
    with (gsm8k(tmp_path) / f"{file}.jsonl").open("a", encoding="utf-8") as opened:
        opened.write(line)
    error = refusal(tmp_path, "gsm8k", None)
    assert error.field == place
    assert problem in error.problem


@pytest.mark.parametrize(("train", "test"), [(204, 20), (300, 0)])
def test_files_of_gsm8k_with_too_few_lines_are_an_error(train: int, test: int, tmp_path: Path) -> None:
    gsm8k(tmp_path, train, test)
    assert "205 and 1 are needed" in refusal(tmp_path, "gsm8k", None).problem


def test_a_folder_of_the_reference_runs_without_its_eval_is_an_error(tmp_path: Path) -> None:
    for file in ("train", "test"):
        (tmp_path / f"{file}.jsonl").write_text(json.dumps({"input": "a", "output": 1}), encoding="utf-8")
    assert "add eval.jsonl" in refusal(tmp_path, "gsm8k", None).remedy
