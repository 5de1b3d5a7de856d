"""Any table gives a configuration that the program accepts, or is refused by name."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import load_config
from cluster.proposing.configuration import configuration, found_lines, written
from cluster.proposing.proposal import proposed
from cluster.proposing.rows import read_data
from cluster.session.models import build_tasks
from gpo.errors import ConfigError

EXAMPLES = int(os.environ.get("GPO_FUZZ_EXAMPLES", "20"))
fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)

_CELLS = (
    *(
        "yes",
        "no",
        "",
        " ",
        "(A)",
        "B",
        "1",
        "2.0",
        "-3",
        "1,000",
        "nan",
        "pos",
        "Pos ",
        "{{ x }}",
        "{% if %}",
        "[[user]]",
    ),
    *(
        "2024-01-02",
        "a, b",
        "#",
        "- x",
        "key: value",
        "'",
        '"',
        "\u2028",
        "\x85",
        "é",
        "🙂",
        "\u202e",
        "--",
        "The answer is",
    ),
)
_NAMES = (
    *("text", "label", "target", "Two words", "label.1", "id", "split", "train", "not", "row", "self", "true", "naïve"),
    *('a"b', "a'b", "{x}", "{{ x }}", "~x", "[[system]]", "#", "a\\b", "date", "answers", "\u2028", "🙂", "x\n", "-"),
)
cells = st.sampled_from(_CELLS) | st.text(max_size=8)
names = st.sampled_from(_NAMES) | st.text(min_size=1, max_size=6)
values = cells | st.none() | st.booleans() | st.integers(0, 9) | st.floats() | st.lists(cells, max_size=2)


@st.composite
def tables(draw: st.DrawFn, kind: st.SearchStrategy[Any]) -> tuple[list[str], list[list[Any]]]:
    """Headings and rows; in a column, values often repeat."""
    headings = draw(st.lists(names, max_size=4, unique=True))
    columns = [draw(st.lists(kind, min_size=1, max_size=draw(st.integers(1, 30)))) for _ in headings]
    count = draw(st.integers(0, 60))
    picks = draw(st.randoms(use_true_random=False))
    return headings, [[picks.choice(column) for column in columns] for _ in range(count)]


def accepts_what_it_writes(data: Path, *, is_embedded: bool) -> bool:
    """Whether a configuration is written, which the program then accepts; otherwise it is refused as it should be."""
    output = data.with_name("config.yaml")
    output.unlink(missing_ok=True)
    refused = None
    try:
        proposal = proposed(read_data(str(data), None, frozenset()), [], None, is_embedded=is_embedded)
        text = configuration(proposal, output, model=None, is_embedded=is_embedded)
        task = written(text, output, may_replace=False)
    except ConfigError as error:
        refused = error
    if refused is not None:
        assert all((refused.field, refused.problem, refused.remedy))
        assert "CONFIG" not in refused.field, refused  # what is written is valid YAML
        assert [path.name for path in data.parent.iterdir()] == [data.name]
        return False
    assert build_tasks(load_config(output))[0].initial == task.initial
    assert all(line.isprintable() for line in (*found_lines(proposal, task), *text.split("\n")))
    return True


@fuzzed
@given(table=tables(cells), is_embedded=st.booleans())
def test_any_csv(table: tuple[list[str], list[list[str]]], is_embedded: bool, tmp_path: Path) -> None:
    headings, rows = table
    text = io.StringIO()
    csv.writer(text).writerows([headings, *rows])
    path = tmp_path / "data.csv"
    path.write_bytes(text.getvalue().encode(errors="surrogatepass"))
    accepts_what_it_writes(path, is_embedded=is_embedded)


@fuzzed
@given(table=tables(values), gaps=st.sets(st.integers(0, 60)))
def test_any_json_lines(table: tuple[list[str], list[list[Any]]], gaps: set[int], tmp_path: Path) -> None:
    headings, rows = table
    objects = [dict(zip(headings, row, strict=True)) for row in rows]
    for number in gaps & {*range(len(objects))}:
        objects[number].pop(headings[0] if headings else "", None)
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in objects), encoding="utf-8")
    accepts_what_it_writes(path, is_embedded=False)


@fuzzed
@given(
    texts=st.lists(
        cells.filter(str.strip), min_size=6, max_size=30, unique_by=lambda text: " ".join(text.split()).lower()
    ),
    labels=st.lists(cells, min_size=1, max_size=4, unique=True),
    heading=names,
)
def test_texts_with_labels(texts: list[str], labels: list[str], heading: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{heading: text, "the target": labels[number % len(labels)]} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    accepts_what_it_writes(path, is_embedded=False)
