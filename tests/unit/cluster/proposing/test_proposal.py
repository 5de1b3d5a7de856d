"""Which configuration is proposed for which file; the program itself accepts every one of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.proposing.configuration import CHECK, configuration, written
from cluster.proposing.proposal import Proposal, proposed
from cluster.proposing.rows import read_data
from gpo.data.task import Split, Task
from gpo.errors import ConfigError

TEXTS = [f"{word} number {index} of the list" for index in range(6) for word in ("one", "two", "three", "four")]


def table(count: int = 24, separator: str = ",", /, **columns: Any) -> str:
    """A table with columns by heading; a column repeats its values, or computes them from the row's number."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([columns, *(_row(row, columns).values() for row in range(count))])
    return text.getvalue()


def lines(count: int = 24, /, **columns: Any) -> str:
    """The same as JSON Lines."""
    return "".join(json.dumps(_row(row, columns)) + "\n" for row in range(count))


def _row(row: int, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values(row) if callable(values) else values[row % len(values)] for name, values in columns.items()}


@dataclass(frozen=True)
class Expected:
    """Parts of the task in the configuration, and words of the doubts that it marks."""

    task: Mapping[str, Any]
    doubts: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def label(*columns: str, prompt: str, kind: str = "label") -> dict[str, Any]:
    return {"fields": dict(zip(("input", "target"), columns, strict=True)), "prompt": prompt, "answer": {"kind": kind}}


SENTIMENT = label("text", "label", prompt="Classify the text. Answer with one of: bad, good.")
CHOICES = [f"Which is it, {index}? (A) cat (B) dog (C) cow" for index in range(24)]
MANY_WORDS = [f"This is the long answer number {index} with many words" for index in range(24)]

CASES: dict[str, tuple[str, str, Expected]] = {
    "labels": ("csv", table(text=TEXTS, label=["good", "bad"]), Expected(SENTIMENT, ["only 24 different inputs"])),
    "tabs": ("tsv", table(24, "\t", text=TEXTS, label=["good", "bad"]), Expected(SENTIMENT, ["only 24"])),
    "a byte order mark": ("csv", "\ufeff" + table(text=TEXTS, label=["good", "bad"]), Expected(SENTIMENT, ["only 24"])),
    "enough rows": ("csv", table(60, text=lambda row: f"text {row}", label=["good", "bad"]), Expected(SENTIMENT)),
    "JSON Lines": ("jsonl", lines(60, text=lambda row: f"text {row}", label=["good", "bad"]), Expected(SENTIMENT)),
    "yes or no": (
        "csv",
        table(text=TEXTS, answer=["Yes", "No"]),
        Expected(label("text", "answer", prompt="Answer with Yes or No.", kind="boolean"), ["only 24"]),
    ),
    "true or false in JSON": (
        "jsonl",
        lines(text=TEXTS, answer=[True, False]),
        Expected(label("text", "answer", prompt="Answer with True or False.", kind="boolean"), ["only 24"]),
    ),
    "numbers": (
        "csv",
        table(question=TEXTS, answer=lambda row: row * 7),
        Expected(label("question", "answer", prompt="Answer with a number.", kind="number"), ["only 24"]),
    ),
    "grades": (
        "csv",
        table(text=TEXTS, rating=[1, 2, 3, 4, 5]),
        Expected(
            label("text", "rating", prompt="Classify the text. Answer with one of: 1, 2, 3, 4, 5."),
            ["only 24", "labels are numbers"],
        ),
    ),
    "options in brackets": (
        "csv",
        table(question=CHOICES, answer=["(A)", "(B)", "(C)"]),
        Expected(
            label(
                "question",
                "answer",
                prompt="Choose the right option. Answer with its letter, such as (A).",
                kind="choice",
            ),
            ["only 24"],
        ),
    ),
    "bare letters of options": (
        "csv",
        table(question=CHOICES, answer=["A", "B", "C"]),
        Expected(
            label(
                "question",
                "answer",
                prompt="Choose the right option. Answer with its letter, such as (A).",
                kind="choice",
            ),
            ["only 24"],
        ),
    ),
    "options in columns": (
        "csv",
        table(question=TEXTS, A=lambda row: f"w{row}", B=lambda row: f"x{row}", answer=["A", "B", "B"]),
        Expected(
            {
                "fields": {"target": "answer"},
                "position": "template",
                "prompt": "Question: {{ question }}\nA: {{ A }}\nB: {{ B }}\n\n"
                "Choose the right option. Answer with its letter, such as (A).",
                "answer": {"kind": "choice"},
            },
            ["only 24"],
        ),
    ),
    "letters without options": (
        "csv",
        table(text=TEXTS, grade=["A", "B", "C"]),
        Expected(
            label("text", "grade", prompt="Classify the text. Answer with one of: A, B, C."),
            ["only 24", "its few different values", "letters are taken as labels"],
        ),
    ),
    "short free answers": (
        "csv",
        table(question=TEXTS, answer=lambda row: f"Town{row}"),
        Expected(label("question", "answer", prompt="Give the answer and nothing else.", kind="exact"), ["only 24"]),
    ),
    "long free answers": (
        "csv",
        table(article=TEXTS, summary=MANY_WORDS),
        Expected(label("article", "summary", prompt="Write the summary.", kind="text"), ["only 24", "ROUGE-L"]),
    ),
    "lists of short right answers": (
        "jsonl",
        lines(question=TEXTS, answers=lambda row: [f"Town{row}", f"Town {row} in France"]),
        Expected(label("question", "answers", prompt="Give the answer and nothing else.", kind="exact"), ["only 24"]),
    ),
    "several columns": (
        "csv",
        table(sender=["Ann", "Bob", "Cy", "Di", "Eve"], **{"Two words": TEXTS}, label=["good", "bad"]),
        Expected(
            {
                "fields": {"target": "label"},
                "position": "template",
                "prompt": 'Sender: {{ sender }}\nTwo words: {{ row["Two words"] }}\n\n'
                "Classify the text. Answer with one of: bad, good.",
                "answer": {"kind": "label"},
            },
            ["only 24"],
        ),
    ),
    "odd names": (
        "jsonl",
        lines(
            **{"label.1": TEXTS, "{x}": lambda row: f"b{row}", "not": lambda row: f"c{row}", "row": TEXTS},
            label=["u", "v"],
        ),
        Expected(
            {
                "prompt": 'Label.1: {{ row["label.1"] }}\nX: {{ row["\\x7bx\\x7d"] }}\nNot: {{ row["not"] }}\n'
                'Row: {{ row["row"] }}\n\nClassify the text. Answer with one of: u, v.',
            },
            ["only 24", "too: 'label.1'"],
        ),
    ),
    "nulls, and cells that a row does not have": (
        "jsonl",
        lines(text=TEXTS, note=[None, "short", ""], label=["good", "bad"]),
        Expected(
            {
                "prompt": 'Text: {{ text }}\nNote: {{ note | default("", true) }}\n\n'
                "Classify the text. Answer with one of: bad, good."
            },
            ["only 24"],
            {},
        ),
    ),
    "columns that are no input": (
        "csv",
        table(
            id=lambda row: f"r{row * 3}",
            line=lambda row: row + 1,
            seen=lambda row: f"2024-01-{row + 1:02}",
            split=["train", "test", "test"],
            kind=["x"],
            empty=[""],
            stars=[1, 2, 3, 4, 5],
            code=[0, 1],
            reason=["I think it is good", "I think it is bad"],
            text=TEXTS,
            label=["good", "bad"],
        ),
        Expected(
            SENTIMENT,
            ["only 24", "Columns 'code' and 'reason' give the answer away", "Column 'split' seems to name"],
            {
                "id": "looks like an id",
                "line": "looks like an id",
                "seen": "looks like a date",
                "split": "seems to name splits",
                "kind": "always has the same value",
                "empty": "is empty",
                "stars": "holds numbers",
                "code": "gives the answer away",
                "reason": "gives the answer away",
            },
        ),
    ),
    "columns named like splits": (
        "csv",
        table(text=TEXTS, train=[1, 0, 0], test=[0, 1, 1], label=["good", "bad"]),
        Expected(SENTIMENT, ["only 24", "Columns 'train' and 'test' seem"], {"train": "seems to name splits"}),
    ),
    "only numbers as input": (
        "csv",
        table(a=lambda row: row * row, b=lambda row: 50 - row, result=lambda row: row * row + 50 - row),
        Expected(
            {"prompt": "A: {{ a }}\nB: {{ b }}\n\nAnswer with a number.", "answer": {"kind": "number"}}, ["only 24"]
        ),
    ),
    "an input that gives the answer away, without another": (
        "csv",
        table(text=lambda row: f"row {row} is {('good', 'bad')[row % 2]}", label=["good", "bad"]),
        Expected(SENTIMENT, ["only 24", "'text' gives the answer away, but"]),
    ),
    "no known names": (
        "csv",
        table(v1=["ham", "spam", "ham"], v2=TEXTS),
        Expected(
            label("v2", "v1", prompt="Classify the text. Answer with one of: ham, spam."),
            ["only 24", "'v1' is taken as the target because of its few different values"],
        ),
    ),
    "two possible targets": (
        "csv",
        table(text=TEXTS, label=["good", "bad"], category=["a", "b", "c"]),
        Expected(
            {"fields": {"target": "label"}, "position": "template"},
            ["only 24", "could be the target, too: 'category'"],
        ),
    ),
    "repeated and contradicting rows": (
        "csv",
        table(60, text=lambda row: f"text {row}", label=["good", "bad"]) + "text 1,bad\ntext 2,bad\n",
        Expected(SENTIMENT, ["1 row repeats an earlier row, in line 62", "another target, in lines 4 and 63"]),
    ),
    "labels that differ in capitals, or occur once": (
        "csv",
        table(60, text=lambda row: f"text {row}", label=["Good", "bad"]) + "text x,good\n",
        Expected(
            label("text", "label", prompt="Classify the text. Answer with one of: bad, Good."),
            ["differ only in capitals or spaces: 'Good', 'good'", "only once: 'good'"],
        ),
    ),
    "almost always the same target": (
        "csv",
        table(60, text=lambda row: f"text {row}", label=lambda row: "bad" if row % 15 == 0 else "good"),
        Expected(SENTIMENT, ["93% of the targets are 'good'"]),
    ),
    "numbers, and a few other targets": (
        "csv",
        table(60, question=lambda row: f"text {row}", answer=lambda row: row * 7 if row else "unknown"),
        Expected(label("question", "answer", prompt="Answer with a number.", kind="number"), ["target is 'unknown'"]),
    ),
    "labels that no prompt should contain": (
        "jsonl",
        lines(60, text=lambda row: f"text {row}", label=["{{ text }}", "b\nc"]),
        Expected(label("text", "label", prompt="Classify the text."), ["does not list the 2 labels"]),
    ),
    "labels like placeholders, in a template": (
        "jsonl",
        lines(60, text=lambda row: f"text {row}", note=lambda row: f"note {row}", label=["{{ text }}", "x"]),
        Expected(
            {"prompt": "Text: {{ text }}\nNote: {{ note }}\n\nClassify the text."}, ["does not list the 2 labels"]
        ),
    ),
    "many labels": (
        "csv",
        table(
            300, text=lambda row: f"text {row}", intent=lambda row: f"intent {'abcdefghijklmnopqrstuvwxyz'[row % 26]}"
        ),
        Expected(label("text", "intent", prompt="Classify the text."), ["does not list the 26 labels"]),
    ),
    "small letters of options": (
        "csv",
        table(question=[text.lower() for text in CHOICES], answer=["a", "b", "c"]),
        Expected({"answer": {"kind": "choice"}}, ["only 24"]),
    ),
    "long texts": (
        "csv",
        table(60, text=lambda row: f"text {row} " * 1_200, label=["good", "bad"]),
        Expected(SENTIMENT, ["60 of 60 inputs have more than 8,000 characters"]),
    ),
}


def propose(path: Path, *inputs: str, target: str | None = None, is_embedded: bool = False) -> Proposal:
    return proposed(read_data(str(path), None, frozenset()), inputs, target, is_embedded=is_embedded)


def write(proposal: Proposal, folder: Path, *, is_embedded: bool = False) -> tuple[str, Task]:
    """The configuration as it is written to the folder, and the task that the program builds of it."""
    output = folder / "config.yaml"
    task = written(configuration(proposal, output, model=None, is_embedded=is_embedded), output, may_replace=False)
    return output.read_text(encoding="utf-8"), task


def marked(text: str) -> list[str]:
    """The comments that mark a doubt, each in one line."""
    joined = " ".join(line.strip().removeprefix("#").strip() if "# " in line else "¦" for line in text.splitlines()[3:])
    return [part.strip(" ¦") for part in joined.split(CHECK)[1:]]


@pytest.mark.parametrize("case", CASES)
def test_what_is_proposed(case: str, tmp_path: Path) -> None:
    suffix, content, expected = CASES[case]
    path = tmp_path / f"data.{suffix}"
    path.write_text(content, encoding="utf-8")

    proposal = propose(path)
    text, _ = write(proposal, tmp_path)

    (task,) = yaml.safe_load(text)["tasks"]
    assert {name: task.get(name) for name in expected.task} == expected.task
    assert {name: proposal.left_out.get(name) for name in expected.left_out} == expected.left_out
    found = marked(text)
    assert len(found) == len(expected.doubts), found
    assert all(words in doubt for words, doubt in zip(expected.doubts, found, strict=True)), found


@pytest.mark.parametrize(
    ("count", "sizes"), [(3, (1, 1, 1)), (4, (1, 1, 2)), (12, (2, 5, 5)), (100, (20, 40, 40)), (2_000, (150, 300, 300))]
)
def test_the_sizes_of_the_splits(count: int, sizes: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(table(count, text=lambda row: f"text {row}", label=["good", "bad"]), encoding="utf-8")
    _, task = write(propose(path), tmp_path)
    assert tuple(len(task.examples[split]) for split in (Split.TRAIN, Split.VAL, Split.TEST)) == sizes


ROWS = table(text=TEXTS, label=["good", "bad"])
REFUSED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "only headings": ("text,label\n", {}, ("FILE", "no example", "add rows")),
    "nothing": ("", {}, ("FILE", "no example", "add rows")),
    "one column": ("text\na\nb\nc\n", {}, ("FILE", "only the column 'text'", "target")),
    "two rows": ("text,label\na,x\nb,y\n", {}, ("FILE", "2 different inputs", "add rows")),
    "one input": ("text,label\na,x\nA,x\na ,y\n", {}, ("FILE", "1 different input,", "add rows")),
    "an empty target": (ROWS + "last,\n", {}, ("FILE", "'label' is empty in 1 of 25 rows: line 26", "remove")),
    "a NaN target": (ROWS + "last,NaN\n", {}, ("FILE", "'label' is empty", "line 26")),
    "an empty input": (ROWS + '" ",good\n', {}, ("FILE", "'text' is empty in 1 of 25 rows: line 26", "--input")),
    "one target": (table(text=TEXTS, label=["x"]), {}, ("FILE", "always has the same value", "--target")),
    "this target": (table(text=TEXTS, label=["x"]), {"target": "label"}, ("--target", "always has the value 'x'")),
    "no target": (table(a=TEXTS, b=TEXTS[::-1], c=TEXTS[5:]), {}, ("FILE", "looks like the right answer", "--target")),
    "only an id": (table(id=lambda row: f"x{row}", label=["u", "v"]), {}, ("FILE", "'id' looks like an id", "--input")),
    "another target": (ROWS, {"target": "labels"}, ("--target", "no column 'labels'", "'text', 'label'")),
    "another input": (ROWS, {"inputs": ["texts"]}, ("--input", "'texts' is no column", "'text'")),
    "the target as input": (ROWS, {"inputs": ["label"]}, ("--input", "'label' is the target")),
    "one column, named as the target": ("a\nx\ny\n", {"target": "a"}, ("FILE", "only the column 'a'")),
    "an odd heading": ("te\x1b[31mxt\nx\n", {}, ("FILE", r"'te\x1b[31mxt'")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    content, options, words = REFUSED[case]
    path = tmp_path / "data.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        propose(path, *options.get("inputs", ()), target=options.get("target"))
    assert all(word in str(refused.value) for word in words), refused.value


def test_the_user_chooses_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(table(id=lambda row: f"x{row}", text=TEXTS, stars=[1, 2], label=["u", "v"]), encoding="utf-8")
    one = propose(path, "id", target="stars")
    assert ([column.name for column in one.inputs], one.target.name) == (["id"], "stars")
    assert one.left_out == {"text": "not named", "label": "gives the answer away"}
    two = propose(path, "stars", "text")
    assert two.prompt.startswith("Stars: {{ stars }}\nText: {{ text }}\n\n")
    assert two.doubts["fields"] == ["Column 'stars' gives the answer away."]


def test_zeros_are_kept_where_a_column_has_nulls(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(lines(a=lambda row: row, b=[0, None, 2], label=["u", "v"]), encoding="utf-8")
    _, task = write(propose(path, "a", "b"), tmp_path)
    texts = {text for example in task.examples[Split.VAL] for _, text in example.placeholder_texts[1:]}
    assert texts == {"0", "", "2"}


def test_the_embedded_model_reads_short_texts_only(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(table(60, text=lambda row: f"text {row} " * 700, label=["good", "bad"]), encoding="utf-8")
    text, _ = write(propose(path, is_embedded=True), tmp_path, is_embedded=True)
    assert yaml.safe_load(text)["models"]["task"]["kind"] == "embedded"
    assert any("the embedded model may refuse them" in doubt for doubt in marked(text))


def test_nothing_is_written_if_the_program_refuses_it(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    # A list of objects cannot be an input.
    path.write_text(lines(text=TEXTS, more=[[{"a": 1}], [{"b": 2}]], label=["u", "v"]), encoding="utf-8")
    with pytest.raises(ConfigError, match="object or a nested list"):
        write(propose(path, "more"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["data.jsonl"]
