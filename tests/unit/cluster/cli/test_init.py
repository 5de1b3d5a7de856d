"""``gpo init`` writes a configuration that ``gpo plan`` accepts as it is, and says what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.commands import RunGpo

MESSAGES = ROOT / "configs" / "quickstart" / "messages.csv"
HEAD = "text,label\n"
ROWS = HEAD + "".join(f"text {row},{('good', 'bad')[row % 2]}\n" for row in range(60))


def write(folder: Path, content: str = ROWS, name: str = "reviews.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_the_file_is_planned_as_it_is(gpo: RunGpo, tmp_path: Path) -> None:
    finished = gpo("init", MESSAGES, "--embedded", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "Rows:     184, with 184 different inputs of 65 characters on average, 80 at most",
        "Input:    'sender', 'message'",
        "Target:   'language': 'Spanish' (46), 'English' (46), 'German' (46), 'French' (46)",
        "Left out: 'id' (looks like an id)",
        "Answers:  kind label, which fits 100 % of the targets",
        "Splits:   train 37, val 73, test 74",
        "Prompt:   Classify the text. Answer with one of: English, French, German, Spanish. "
        "(below the columns of the input)",
        "CHECK: Column 'language' is taken as the target because of its few different values. "
        "These could be the target, too: 'sender'. To choose another: --target.",
    ]
    assert finished.stderr.splitlines()[-2:] == ["  gpo plan messages.yaml", "  gpo run messages.yaml"]
    planned = gpo("plan", "messages.yaml", cwd=tmp_path)
    assert planned.code == 0, planned.stderr
    assert "messages" in planned.stdout


def test_the_user_chooses_columns_model_and_file(gpo: RunGpo, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    options = ("--target", "sender", "--input", "message", "--model", "my: model", "--output", "my.yaml")
    write(tmp_path / "data", MESSAGES.read_text(encoding="utf-8"), "a b.csv")
    finished = gpo("init", "data/a b.csv", *options, cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    config = yaml.safe_load((tmp_path / "my.yaml").read_text(encoding="utf-8"))
    assert [config["models"][role]["model"] for role in ("task", "optimizer")] == ["my: model"] * 2
    (task,) = config["tasks"]
    assert (task["name"], task["data"]["file"]) == ("a-b", "data/a b.csv")
    assert task["fields"] == {"input": "message", "target": "sender"}
    assert gpo("plan", "my.yaml", cwd=tmp_path).code == 0


def test_the_path_of_a_file_in_another_folder(gpo: RunGpo, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    write(tmp_path, name="~reviews.csv")
    for output, file in (("here.yaml", str(tmp_path / "~reviews.csv")), ("configs/there.yaml", "../~reviews.csv")):
        finished = gpo("init", "~reviews.csv", "--output", output, cwd=tmp_path)
        assert finished.code == 0, finished.stderr
        config = yaml.safe_load((tmp_path / output).read_text(encoding="utf-8"))
        assert config["tasks"][0]["data"]["file"] == file


def test_a_file_is_replaced_only_if_the_user_says_so(gpo: RunGpo, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "reviews.yaml").write_text("mine", encoding="utf-8")
    refused = gpo("init", "reviews.csv", cwd=tmp_path)
    assert refused.code == 2
    assert refused.stderr == (
        "gpo: error: --output: 'reviews.yaml' exists; name another file, or replace this one with --force\n"
    )
    assert (tmp_path / "reviews.yaml").read_text(encoding="utf-8") == "mine"
    assert gpo("init", "reviews.csv", "--force", cwd=tmp_path).code == 0
    assert yaml.safe_load((tmp_path / "reviews.yaml").read_text(encoding="utf-8"))["run"] == {"name": "reviews"}
    # A mistake in the data keeps the file that would be replaced.
    write(tmp_path, HEAD)
    assert gpo("init", "reviews.csv", "--force", cwd=tmp_path).code == 2
    assert "run: {name: reviews}" in (tmp_path / "reviews.yaml").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reviews.csv", "reviews.yaml"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("reviews.csv", "--model", "m", "--embedded"), ("--model", "keep one")),
        (("reviews.csv", "--model", " "), ("--model", "is empty")),
        (("reviews.csv", "--output", "reviews.csv"), ("--output", "exists")),
        (("reviews.csv", "--output", "reviews.txt"), ("--output", ".yaml")),
        (("reviews.csv", "--output", "no/reviews.yaml"), ("--output", "cannot be written")),
        (("reviews.csv", "--config", "main"), ("--config", "is a file")),
        (("review.csv",), ("FILE", "does not exist")),
        (("reviews",), ("FILE", "does not exist", "owner/name")),
        (("reviews.xlsx",), ("FILE", "convert it")),
        (("reviews.csv", "--target", "x"), ("--target", "no column 'x'")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_and_writes_nothing(
    gpo: RunGpo, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    write(tmp_path)
    write(tmp_path, "x", "reviews.xlsx")
    finished = gpo("init", *options, cwd=tmp_path)
    assert (finished.code, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    assert all(word in line for word in words), line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reviews.csv", "reviews.xlsx"]


@pytest.mark.parametrize("evil", ["\x1b[2J\u2028models: x\x85tasks: y", "\u202e", "\U000e0001", "a\n\u202e"])
def test_text_of_the_file_moves_no_cursor_and_ends_no_comment(gpo: RunGpo, evil: str, tmp_path: Path) -> None:
    rows = [{f"id{evil}": row, "text": f"text {row}", f"target{evil}": f"{evil}{row % 2}"} for row in range(60)]
    write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "rows.jsonl")
    finished = gpo("init", "rows.jsonl", "--target", f"target{evil}", "--input", "text", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    written = (tmp_path / "rows.yaml").read_text(encoding="utf-8")
    assert all(line.isprintable() for text in (written, finished.stdout, finished.stderr) for line in text.split("\n"))
    (task,) = yaml.safe_load(written)["tasks"]
    assert task["fields"]["target"] == f"target{evil}"


@pytest.mark.parametrize(
    ("splits", "data", "doubts"),
    [
        ({"train": 40, "validation": 12, "test": 400}, {"train": "train", "val": "validation", "test": "test"}, []),
        (
            {"train": 40, "test": 12},
            {"train": "train[:50%]", "val": "train[50%:]", "test": "test"},
            ["The splits are 'train', 'test'"],
        ),
        (
            {"train": 40},
            {"train": "train[:20%]", "val": "train[20%:60%]", "test": "train[60%:]"},
            ["The splits are 'train'"],
        ),
    ],
    ids=["three", "two", "one"],
)
def test_the_splits_of_a_data_set(
    gpo: RunGpo, offline_datasets: Path, splits: dict[str, int], data: dict[str, str], doubts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    for split, count in splits.items():
        rows = [{"text": f"{split} {row}", "label": ("good", "bad")[row % 2]} for row in range(count)]
        write(tmp_path / "set", "".join(json.dumps(row) + "\n" for row in rows), f"{split}.jsonl")
    finished = gpo("init", "./set", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    config = yaml.safe_load((tmp_path / "set.yaml").read_text(encoding="utf-8"))
    assert config["tasks"][0]["data"] == {"huggingface": "./set", **data}
    assert config.get("evaluation") == ({"test_size": 300} if splits.get("test", 0) > 300 else None)
    found = [line for line in finished.stdout.splitlines() if line.startswith("CHECK")]
    assert len(found) == len(doubts)
    assert all(words in line for words, line in zip(doubts, found, strict=True))


def test_a_data_set_without_targets_in_a_split_or_sorted_by_target(
    gpo: RunGpo, offline_datasets: Path, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    rows = [{"text": f"text {row}", "label": "good" if row < 20 else "bad"} for row in range(40)]
    write(tmp_path / "set", "".join(json.dumps(row) + "\n" for row in rows), "train.jsonl")
    rows = [{"text": f"test {row}", "label": None} for row in range(9)]
    write(tmp_path / "set", "".join(json.dumps(row) + "\n" for row in rows), "test.jsonl")
    finished = gpo("init", "./set", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    assert "CHECK: Some labels are missing in train and test, such as 'bad'." in finished.stdout
    assert "CHECK: These splits have no targets, and are not used: 'test'." in finished.stdout
    refused = gpo("init", "./set", "--config", "other", "--force", cwd=tmp_path)
    assert (refused.code, "--config: 'other' is not a configuration" in refused.stderr) == (2, True)
