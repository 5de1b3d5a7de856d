"""Data sets through the package ``datasets``, from local folders: nothing is downloaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpo.data.example import Example
from gpo.data.files import Fields
from gpo.data.huggingface import _FORMATS, HubDataset
from gpo.data.template import Template
from gpo.errors import ConfigError

pytestmark = pytest.mark.usefixtures("offline_datasets")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file, count in (("train", 10), ("test", 4)):
        rows = [{"question": f"{file} {i}?", "hint": f"h{i}", "answer": i, "none": None} for i in range(count)]
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


FIELDS = Fields("question", "answer")


def read(
    name: Path | str, split: str, fields: Fields = FIELDS, config: str | None = None, revision: str | None = None
) -> tuple[Example, ...]:
    return HubDataset(str(name), config, revision).read(split, fields, where="tasks[0].data", at="val")


@pytest.mark.parametrize(
    ("split", "first", "count"),
    [("train[:80%]", 0, 8), ("train[80%:]", 8, 2), ("train", 0, 10), ("test[1:3]", 1, 2)],
)
def test_a_part_of_a_split_is_read_in_order(split: str, first: int, count: int, folder: Path) -> None:
    name = split.partition("[")[0]
    expected = tuple(Example(f"{name} {i}?", (str(i),)) for i in range(first, first + count))
    assert read(folder, split) == expected


def test_class_labels_are_read_as_their_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    table.to_parquet(str(tmp_path / "train.parquet"))
    fields = Fields("text", "label")
    assert [example.target for example in read(tmp_path, "train[:2]", fields)] == ["good", "bad"]
    with pytest.raises(ConfigError, match=r"row 2\): column 'label' is empty"):
        read(tmp_path, "train", fields)


@pytest.mark.parametrize(
    ("split", "fields", "field", "problem"),
    [
        ("validation", FIELDS, "tasks[0].data.val", "'validation' is not a split of"),
        ("train[:x", FIELDS, "tasks[0].data.val", "'train[:x' is not a split of"),
        ("train[50:]", FIELDS, "tasks[0].data.val", "'train[50:]' is not a split of"),
        ("train[:0]", FIELDS, "tasks[0].data.val", "'train[:0]'"),
        ("train", Fields("text", "answer"), "row 0)", "there is no column 'text'; the columns are: question, hint"),
        ("train", Fields("question", "none"), "row 0)", "column 'none' is empty"),
        ("train", Fields(Template("{{ text }}", "fields.template"), "answer"), "row 0)", "'text' is undefined"),
    ],
)
def test_an_error_names_what_is_missing_in_the_data_set(
    split: str, fields: Fields, field: str, problem: str, folder: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(folder, split, fields)
    assert caught.value.field.endswith(field)
    assert caught.value.field.startswith("tasks[0].data.val")
    assert problem in caught.value.problem
    assert caught.value.remedy


def test_an_unknown_configuration_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'main' is not a configuration of") as caught:
        read(folder, "train", config="main")
    assert caught.value.field == "tasks[0].data.config"


@pytest.mark.parametrize("revision", [None, "v1"])
def test_an_unreachable_hub_is_an_error(revision: str | None) -> None:
    with pytest.raises(ConfigError, match=r"'owner/name' cannot be loaded \(.*reach") as caught:
        read("owner/name", "train", revision=revision)
    assert caught.value.field == "tasks[0].data.huggingface"
    assert "network" in caught.value.remedy


@pytest.mark.parametrize("content", [None, '{"question": "a"'], ids=["no file", "half a file"])
def test_a_folder_without_usable_files_is_an_error(content: str | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / "train.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        read(tmp_path, "train")
    assert caught.value.field == "tasks[0].data.huggingface"
    assert "\n" not in str(caught.value)


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / f"{tmp_path.name}.py").write_text(f"open({str(ran)!r}, 'w').close()", encoding="utf-8")
    with pytest.raises(ConfigError):
        read(tmp_path, "train")
    assert not ran.exists()


def test_the_package_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="needs the package 'datasets'") as caught:
        read("owner/name", "train")
    assert caught.value.field == "tasks[0].data.huggingface"
    assert "[huggingface]" in caught.value.remedy


@pytest.mark.parametrize("name", ["json", "csv", "imagefolder", "text", "Parquet"])
def test_the_name_of_a_format_is_not_a_data_set(name: str) -> None:
    with pytest.raises(ConfigError, match="is a format of files, not a data set") as caught:
        read(name, "train")
    assert caught.value.field == "tasks[0].data.huggingface"


def test_every_format_of_the_package_is_refused() -> None:
    packaged = pytest.importorskip("datasets.packaged_modules")
    assert set(packaged._PACKAGED_DATASETS_MODULES) <= _FORMATS


def test_a_name_that_is_a_folder_in_the_working_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (tmp_path / "owner/name").mkdir(parents=True)
    (folder / "train.jsonl").rename(tmp_path / "owner/name/train.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"write \./name for a folder") as caught:
        read("owner/name", "train")
    assert caught.value.field == "tasks[0].data.huggingface"
    assert read(tmp_path / "owner/name", "train[:1]") == (Example("train 0?", ("0",)),)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A data set with a column of pictures, none of which can be decoded."""
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["a"], "label": ["x"], "picture": [{"bytes": b"no picture", "path": "a.png"}]}
    table = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    table.to_parquet(str(tmp_path / "train.parquet"))
    return tmp_path


@pytest.mark.parametrize(
    "fields",
    [
        Fields("text", "label"),
        Fields(Template("{{ text }}", "fields.template"), "label"),
        Fields(Template("{{ row['text'] }}", "fields.template"), "label"),
    ],
)
def test_images_are_not_decoded(fields: Fields, pictures: Path) -> None:
    assert read(pictures, "train", fields) == (Example("a", ("x",)),)


def test_a_row_that_cannot_be_read_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def broken(self: object) -> Iterator[object]:
        raise OSError("half a block")

    monkeypatch.setattr(datasets.Dataset, "__iter__", broken)
    with pytest.raises(ConfigError, match=r"cannot be loaded \(OSError: half a block"):
        read(folder, "train")
