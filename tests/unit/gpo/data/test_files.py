from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from gpo.data.benchmarks import BENCHMARKS
from gpo.data.catalogue import BENCHMARK_NAMES, tasks_of
from gpo.data.example import Example, inferred_kind
from gpo.data.files import Fields, read_examples
from gpo.data.splits import (
    absent_from,
    distinct,
    divided,
    require_disjoint,
    row_warnings,
    sampled,
    shuffled,
    with_equal_numbers_alike,
    without_overlap,
)
from gpo.data.task import Split
from gpo.errors import ConfigError

BOM = "\ufeff"


def read(folder: Path, name: str, content: str | bytes, fields: Fields = Fields()) -> tuple[Example, ...]:  # noqa: B008
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_examples(path, fields, where="tasks.t.data.val")


def row(**fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False)


def splits(train: str = "", val: str = "", test: str = "") -> dict[Split, tuple[Example, ...]]:
    """One example per letter."""
    letters = {Split.TRAIN: train, Split.VAL: val, Split.TEST: test}
    return {split: tuple(Example(letter, (split,)) for letter in inputs) for split, inputs in letters.items()}


def inputs(split: Sequence[Example]) -> str:
    return "".join(example.input for example in split)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", row(input="1 + 1?", target="2") + "\n" + row(input="2 + 2?", target="4") + "\n"),
        ("x.jsonl", BOM + row(input="1 + 1?", target="2") + "\r\n\r\n  \n" + row(input="2 + 2?", target="4")),
        ("x.jsonl", row(input="1 + 1?", target=2, more=None) + "\n" + row(target=4, input="2 + 2?")),
        ("x.JSONL", row(input="1 + 1?", target=["2"]) + "\n" + row(input="2 + 2?", target=[4])),
        ("x.csv", "input,target\n1 + 1?,2\n2 + 2?,4\n"),
        ("x.csv", BOM + 'id,target,input\r\n7,2,1 + 1?\r\n\r\n8,"4","2 + 2?"'),
        ("x.csv", "input,target\n\n1 + 1?,2\n,\n  \n2 + 2?,4\n\n"),
        ("x.csv", "input,target,,\n1 + 1?,2,,\n,,,,,\n2 + 2?,4,,\n"),
        ("x.csv", BOM + "input;target\r\n1 + 1?;2\r\n2 + 2?;4\r\n"),
        ("x.csv", "sep=;\r\ninput;target\r\n1 + 1?;2\r\n2 + 2?;4\r\n"),
        ("x.csv", 'a, or b, or c;"input";target\n,;1 + 1?;2\n,;2 + 2?;4\n'),
        ("x.csv", "input\ttarget\n1 + 1?\t2\n2 + 2?\t4\n"),
        ("x.tsv", "a,b,c\tinput\ttarget\n,\t1 + 1?\t2\n,,\t2 + 2?\t4\n"),
        ("x.csv", "input,target\n1 + 1?,2,\n2 + 2?,4, ,\n"),
        ("x.csv", "input|target\r1 + 1?|2\r2 + 2?|4\r"),
        ("x.csv", ' input , target\n"1 + 1?", "2"\n"2 + 2?","4"\n'),
    ],
)
def test_examples_are_read_in_order(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, name, content) == (Example("1 + 1?", ("2",)), Example("2 + 2?", ("4",)))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.csv", 'input,target\n"one\ntwo, ""three""",yes\n', Example('one\ntwo, "three"', ("yes",))),
        ("x.csv", "input,target\none\u2028two\x0cthree,yes\n", Example("one\u2028two\x0cthree", ("yes",))),
        ("x.jsonl", row(input="one\u2028two\u0085three", target="yes"), Example("one\u2028two\u0085three", ("yes",))),
        ("x.jsonl", row(input="one\ntwo", target="yes"), Example("one\ntwo", ("yes",))),
        ("x.jsonl", row(input=7, target=True), Example("7", ("True",))),
        ("x.jsonl", row(input="?", target=["a", 2, False]), Example("?", ("a", "2", "False"))),
        ("x.jsonl", row(input="?", target=0), Example("?", ("0",))),
        ("x.jsonl", row(input="?", target=[1e16, 1e-7, 2.5]), Example("?", ("10000000000000000", "0.0000001", "2.5"))),
        ("x.jsonl", '{"input": "nan", "target": "Nan", "other": NaN}', Example("nan", ("Nan",))),
        ("x.csv", "input,target\n" + "a" * 200_000 + ",b\n", Example("a" * 200_000, ("b",))),
        ("x.csv", "input;target\none, two|three;yes\n", Example("one, two|three", ("yes",))),
    ],
)
def test_texts_are_kept_unchanged(tmp_path: Path, name: str, content: str, expected: Example) -> None:
    assert read(tmp_path, name, content) == (expected,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", row(input="a", target="b") + '\n{"input": "c", "tar', r"x\.jsonl:2\): not valid JSON"),
        ("x.jsonl", "\n[1, 2]", r"x\.jsonl:2\): a JSON list, not an object"),
        (
            "x.jsonl",
            row(input="a", label="b"),
            r"x\.jsonl:1\): there is no column 'target'; the columns are: input, label",
        ),
        ("x.jsonl", row(text="a", target="b"), r"no column 'input'; .* set fields\.input"),
        ("x.csv", "input,label\na,b\n", r"x\.csv:2\): there is no column 'target'; the columns are: input, label"),
        ("x.csv", "input,target\na,b\n\nc\n", r"x\.csv:4\): column 'target' is empty"),
        ("x.csv", 'input,target\na,b\n"c,d\ne,f\n', r"x\.csv:3\): not valid CSV"),
        ("x.csv", "input,target\na,b\nc, and d,e\n", r"x\.csv:3\): there are 3 cells for 2 headings; put quotes"),
        ("x.csv", "input,target,input\na,b,c\n", r"x\.csv:1\): two columns are named 'input'; use unique"),
        ("x.csv", 'input,target\n"two\nlines",nan\n', r"x\.csv:2\): the target is 'nan', a missing value"),
        ("x.csv", "input, target, target \na,b,c\n", r"x\.csv:1\): two columns are named 'target'"),
        ("x.csv", "input;target\na;b;c\n", r"x\.csv:2\): there are 3 cells for 2 .*contains a semicolon"),
        ("x.tsv", "text\tlabel\na\tb\n", r"x\.tsv:2\): there is no column 'input'; the columns are: text, label"),
        (
            "x.jsonl",
            row(input="a", target="b") + '\n{"input": "c", "target": NaN}',
            r"x\.jsonl:2\): .* NaN or infinite",
        ),
        ("x.jsonl", '{"input": "c", "target": [1, -Infinity]}', r"x\.jsonl:1\): column 'target' is NaN or infinite"),
        ("x.jsonl", '{"input": NaN, "target": 1}', r"x\.jsonl:1\): column 'input' is NaN or infinite"),
        ("x.jsonl", row(input="a", target=["b", "NaN"]), "the target is 'NaN', a missing value"),
        ("x.csv", "input,target\n", "contains no example"),
        ("x.csv", "", "contains no example"),
        ("x.jsonl", "", "contains no example"),
        ("x.jsonl", BOM + "\n\n", "contains no example"),
        ("x.jsonl", row(input="", target="b"), "column 'input' is empty"),
        ("x.jsonl", row(input=" \n", target="b"), "column 'input' is empty"),
        ("x.jsonl", row(input="a", target=None), "column 'target' is empty"),
        ("x.jsonl", row(input="a", target=[]), "column 'target' is empty"),
        ("x.jsonl", row(input="a", target=["b", ""]), "column 'target' is empty"),
        ("x.jsonl", row(input="a", target={"b": 1}), "column 'target' contains an object"),
        ("x.jsonl", row(input="a", target=[["b"]]), "column 'target' contains .* nested list"),
        ("x.jsonl", row(input=["a", "b"], target="c"), "column 'input' is a list"),
        ("x.jsonl", '{"input": "a", "target": "\\ud83d"}', "column 'target' contains a lone surrogate"),
        ("x.jsonl", "[" * 100_000, "not valid JSON"),
        ("x.jsonl", '{"input": "a", "target": ' + "1" * 5000 + "}", "not valid JSON"),
        ("x.jsonl", b'{"input": "caf\xe9", "target": "b"}', "is not UTF-8"),
        ("x.csv", "input,target\na,é\n".encode("utf-16"), "is not UTF-8"),
        ("x.csv", "input,target\na,b\n".encode("utf-16-le"), "NUL characters, as UTF-16 read as UTF-8 does"),
        ("x.txt", "a b", r"neither \.jsonl nor \.csv nor \.tsv"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, name, content)
    assert caught.value.field.startswith("tasks.t.data.val")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "message"), [("missing.jsonl", "does not exist"), (".jsonl/x.csv", "cannot be read|not exist")]
)
def test_a_missing_file_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_examples(tmp_path / name, Fields(), where="tasks.t.data.val")


def test_a_folder_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_examples(tmp_path / "val.jsonl", Fields(), where="tasks.t.data.val")


@pytest.mark.parametrize(
    ("overlapping", "names"),
    [
        (splits("ab", "bc", "d"), "in both train and val"),
        (splits("a", "b", "ab"), "in both train and test"),
        (splits("a", "bc", "c"), "in both val and test"),
        ({**splits("a", "b"), Split.TEST: (Example(" B ", ("",)),)}, "in both val and test"),
        (
            {**splits("a"), Split.VAL: (Example("x" * 500, ("",)),), Split.TEST: (Example("X" * 500, ("",)),)},
            "'X{60}…'",
        ),
    ],
)
def test_an_input_in_two_splits_is_refused(overlapping: dict[Split, tuple[Example, ...]], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        require_disjoint(overlapping, where="tasks.t.data")


def test_an_overlap_stays_in_test_first_then_in_val() -> None:
    kept = without_overlap(splits(train="abcaz", val="abxx", test="aqq"))
    assert {split: inputs(examples) for split, examples in kept.items()} == {
        Split.TRAIN: "cz",
        Split.VAL: "bx",
        Split.TEST: "aqq",
    }
    require_disjoint(kept, where="tasks.t.data")


@pytest.mark.parametrize("size", [1, 3, 25])
def test_a_sample_is_always_the_same_and_in_order(size: int) -> None:
    examples = splits(val="abcdefghijklmnopqrstuvwxyz")[Split.VAL]
    sample = sampled(examples, size)
    assert sample == sampled(examples, size)
    assert len(sample) == size
    assert list(inputs(sample)) == sorted(set(inputs(sample)))


def test_repeats_are_found_regardless_of_case_and_white_space() -> None:
    examples = [Example(text, (str(index),)) for index, text in enumerate(["a b", "c", "A  b\n", "d"])]
    assert [example.target for example in distinct(examples)] == ["0", "1", "3"]
    assert [example.target for example in absent_from(examples, [Example("A b", ("",))])] == ["1", "3"]


def test_a_shuffled_data_set_is_always_in_the_same_order() -> None:
    examples = splits(val="abcdefghijklmnopqrstuvwxyz")[Split.VAL]
    mixed = shuffled(examples)
    assert mixed == shuffled(examples)
    assert mixed != examples
    assert sorted(inputs(mixed)) == list(inputs(examples))


ALL = [
    Example(f"{kind} {number}", (kind,)) for kind, count in (("a", 60), ("b", 30), ("c", 10)) for number in range(count)
]
SIZES = {Split.TRAIN: 0.2, Split.VAL: 0.4, Split.TEST: 0.4}


def test_one_file_is_divided_with_the_same_share_of_every_target_in_each_split() -> None:
    found = divided(ALL, SIZES, 0, where="tasks[0].data.split")
    assert {
        split: [sum(one.target == kind for one in examples) for kind in "abc"] for split, examples in found.items()
    } == {
        Split.TRAIN: [12, 6, 2],
        Split.VAL: [24, 12, 4],
        Split.TEST: [24, 12, 4],
    }
    assert sorted(one.input for examples in found.values() for one in examples) == sorted(one.input for one in ALL)
    assert found == divided(ALL, SIZES, 0, where="tasks[0].data.split")
    assert found != divided(ALL, SIZES, 1, where="tasks[0].data.split")


def test_sizes_of_splits_may_be_numbers_and_need_not_use_all_examples() -> None:
    found = divided(ALL, {Split.TRAIN: 1, Split.VAL: 7, Split.TEST: 0.25}, 0, where="")
    assert [len(found[split]) for split in Split] == [1, 7, 25]
    # Another size of train leaves val and test as they are.
    more = divided(ALL, {Split.TRAIN: 60, Split.VAL: 7, Split.TEST: 0.25}, 0, where="")
    assert (found[Split.VAL], found[Split.TEST]) == (more[Split.VAL], more[Split.TEST])


@pytest.mark.parametrize("seed", range(5))
def test_a_repeated_input_ends_in_one_split(seed: int) -> None:
    repeated = [Example(f" {one.input.upper()}", ("other",)) for one in ALL]
    found = divided([*ALL, *repeated], SIZES, seed, where="")
    require_disjoint(found, where="")
    assert [len(found[split]) for split in Split] == [40, 80, 80]


def test_texts_with_many_different_targets_are_divided_at_random() -> None:
    texts = [Example(f"{number}?", (f"{number}!",)) for number in range(100)]
    found = divided(texts, SIZES, 0, where="")
    assert [len(found[split]) for split in Split] == [20, 40, 40]
    assert found[Split.TEST] != tuple(texts[:40])


@pytest.mark.parametrize(
    ("sizes", "field", "problem"),
    [
        ({**SIZES, Split.TRAIN: 0.004}, "split.train", "0.004 of 100 different inputs is no example"),
        ({**SIZES, Split.VAL: 90.0}, "split", "needs 150 different inputs; the file has 100"),
    ],
)
def test_a_split_that_the_file_is_too_small_for_is_refused(sizes: dict[Split, float], field: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        divided(ALL, sizes, 0, where="split")
    assert caught.value.field == field


def test_repeated_and_contradicting_rows_are_reported_with_their_lines() -> None:
    rows = [Example(text, (target,)) for text, target in ("ax", "bx", "Ax", "by", "cx", "ax", "ax", "ax", "by")]
    repeated, contradicting = row_warnings(dict(enumerate(rows, start=2)))
    assert repeated == "5 rows repeat an earlier row, in line 4, 7, 8 and 2 more; each of them counts again"
    assert contradicting.startswith("1 row has the input of an earlier row and another target, in lines 3 and 5; no")
    assert list(row_warnings({2: rows[0], 3: rows[1]})) == []


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (["1.0", "0.0"], ["1", "0"], ["1", "0", "1", "0"]),
        (["1.0", "2.50"], ["3.00"], ["1", "2.50", "3"]),
        (["1.0", "unknown"], ["1"], ["1", "unknown", "1"]),
        (["True", "0"], ["1.0"], ["1", "0", "1"]),
        (["true", "False"], ["True"], ["true", "False", "True"]),
        (["2.0", "2.7.1"], ["3.0"], ["2.0", "2.7.1", "3.0"]),
        (["True", "2"], ["1.0"], ["True", "2", "1.0"]),
    ],
)
def test_equal_numbers_become_one_target(train: list[str], val: list[str], expected: list[str]) -> None:
    given = {name: tuple(Example("?", (target,)) for target in targets) for name, targets in (("a", train), ("b", val))}
    assert [one.target for examples in with_equal_numbers_alike(given).values() for one in examples] == expected


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two benchmarks: one with several tasks, one with a single task."""
    for folder, target in (("bbh/navigate", "target"), ("bbh/snarks", "target"), ("gsm8k", "output")):
        (tmp_path / folder).mkdir(parents=True)
        for file, letters in (("train", "abc"), ("eval", "cd"), ("test", "de")):
            lines = [row(**{"input": f"{folder} {letter}", target: "7"}) for letter in letters]
            (tmp_path / folder / f"{file}.jsonl").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize("inside", [False, True], ids=["root", "the benchmark's folder"])
@pytest.mark.parametrize(("name", "task", "prefix"), [("bbh", "navigate", "bbh/navigate"), ("gsm8k", None, "gsm8k")])
def test_a_benchmark_loads_without_overlap(root: Path, inside: bool, name: str, task: str | None, prefix: str) -> None:
    loaded = BENCHMARKS[name].load(root / name if inside else root, task, where="tasks.t.data")
    assert {split: [example.input for example in examples] for split, examples in loaded.splits.items()} == {
        Split.TRAIN: [f"{prefix} a", f"{prefix} b"],
        Split.VAL: [f"{prefix} c"],
        Split.TEST: [f"{prefix} d", f"{prefix} e"],
    }
    assert loaded.few_shot == ()


def test_few_shot_examples_that_are_held_out_are_dropped(root: Path) -> None:
    lines = [row(input=f"bbh/navigate {letter}", target="7") for letter in "acexy"]
    (root / "bbh/navigate/few_shot_examples.jsonl").write_text("\n".join(lines))
    loaded = BENCHMARKS["bbh"].load(root, "navigate", where="tasks.t.data")
    assert [example.input[-1] for example in loaded.few_shot or ()] == ["a", "x", "y"]


@pytest.mark.parametrize(
    ("name", "task", "folder", "message"),
    [
        ("bbh", "navigat", ".", "'navigat' is not a task of bbh .* did you mean 'navigate'"),
        ("bbh", None, ".", "None is not a task of bbh"),
        ("bbh", "Navigate", ".", "did you mean 'navigate'"),
        ("bbh", "xyz", ".", "choose one of: navigate, snarks"),
        ("bbh", "navigate", "gsm8k", r"data\.root: .*gsm8k' contains no task of bbh; name the folder"),
        ("bbh", "navigate", "nowhere", r"root: .*nowhere' is not a folder"),
        ("mmlu", "anatomy", ".", r"data\.root: .* contains no task of mmlu"),
        ("wsc", None, ".", "does not exist"),
        ("gsm8k", "navigate", ".", "name: 'navigate' is unknown: gsm8k has one task; leave it out"),
    ],
)
def test_a_missing_benchmark_is_an_error(root: Path, name: str, task: str | None, folder: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BENCHMARKS[name].load(root / folder, task, where="tasks.t.data")


def test_a_benchmark_whose_val_repeats_test_is_refused(root: Path) -> None:
    folder = root / "gsm8k"
    (folder / "eval.jsonl").write_bytes((folder / "test.jsonl").read_bytes())
    with pytest.raises(ConfigError, match="every example of val is also in test"):
        BENCHMARKS["gsm8k"].load(root, None, where="tasks.t.data")


@pytest.mark.parametrize("repeated", ["eval", "test"])
def test_a_benchmark_whose_train_is_held_out_altogether_is_refused(repeated: str, root: Path) -> None:
    folder = root / "gsm8k"
    (folder / "train.jsonl").write_bytes((folder / f"{repeated}.jsonl").read_bytes())
    with pytest.raises(ConfigError, match="every example of train is also in val or test") as caught:
        BENCHMARKS["gsm8k"].load(root, None, where="tasks.t.data")
    assert '"train[:80%]"' in caught.value.remedy


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (["(A)", "(K)"], "choice"),
        (["(A)"] * 39 + ["Monsters, Inc"], "choice"),
        (["(A)"] * 9 + ["Monsters, Inc"], "exact"),
        (["Yes", "no"], "boolean"),
        (["valid", "invalid"], "boolean"),
        (["True", "False"], "boolean"),
        (["7", "-3.5", "1,234"], "number"),
        (["7", "seven"], "exact"),
        (["] )", ")"], "exact"),
    ],
)
def test_the_kind_is_inferred_from_the_targets(targets: list[str], kind: str) -> None:
    assert inferred_kind([Example("?", (target,)) for target in targets]) == kind


def test_alternative_targets_mean_free_text() -> None:
    assert inferred_kind([Example("?", ("7",)), Example("?", ("7", "seven"))]) == "text"


@pytest.mark.skipif("GPO_DATA" not in os.environ, reason="GPO_DATA does not name the benchmarks' folder")
@pytest.mark.parametrize("name", BENCHMARK_NAMES)
def test_the_real_benchmarks_load_and_their_targets_are_of_the_catalogue_s_family(name: str) -> None:
    root = Path(os.environ["GPO_DATA"])
    for task in tasks_of(name):
        loaded = BENCHMARKS[name].load(root, task.name, where="tasks.t.data")
        require_disjoint(loaded.splits, where="tasks.t.data")
        assert all(loaded.splits.values()), task
        assert len(loaded.few_shot or ()) >= 4, task
        found = inferred_kind([example for split in loaded.splits.values() for example in split])
        assert found == {"words": "exact", "brackets": "exact"}.get(task.family, task.family), task
    if BENCHMARKS[name].has_tasks:
        folders = {path.name for path in (root / name).iterdir() if path.is_dir()}
        assert folders == {task.name for task in tasks_of(name)}
