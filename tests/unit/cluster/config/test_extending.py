from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import load_config
from cluster.config.files import read_extended
from gpo.errors import ConfigError

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
RUN = {
    "models": {"task": MODEL, "optimizer": MODEL},
    "tasks": [{"name": "desk", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "/c.jsonl"}}],
    "optimizer": {"steps": 4, "candidates": 2},
}


def write(path: Path, **sections: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
    return path


def test_later_files_go_before_earlier_ones_and_the_file_itself_before_all(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", run={"name": "one", "dir": "there"}, optimizer={"steps": 1})
    write(tmp_path / "two.yaml", run={"name": "two"})
    path = write(tmp_path / "top.yaml", extends=["one.yaml", "two.yaml"], optimizer={"candidates": 3})
    assert read_extended(path) == {"run": {"name": "two", "dir": "there"}, "optimizer": {"steps": 1, "candidates": 3}}


def test_paths_start_at_the_file_that_they_stand_in(tmp_path: Path) -> None:
    write(tmp_path / "base" / "run.yaml", **RUN)
    config = load_config(write(tmp_path / "elsewhere" / "top.yaml", extends="../base/run.yaml"))
    data = config.tasks[0].data
    assert (data.train, data.test) == (tmp_path / "base" / "a.jsonl", Path("/c.jsonl"))


def test_functions_are_looked_for_beside_the_file_that_names_them(tmp_path: Path) -> None:
    task = {**RUN["tasks"][0], "answer": {"kind": "custom", "metric": "own:metric"}}
    write(tmp_path / "base" / "run.yaml", **{**RUN, "tasks": [task]})
    config = load_config(write(tmp_path / "elsewhere" / "top.yaml", extends="../base/run.yaml"))
    assert config.tasks[0].answer.folder == tmp_path / "base"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"extends": "gone.yaml"}, "extends .top.yaml.: .*gone.yaml. does not exist"),
        ({"extends": "top.yaml"}, "extends: .*extends itself"),
        ({"extends": 3}, "extends: 3 cannot be used"),
        ({"extends": "~nobody-of-this-name/x.yaml"}, "extends: .* is no path"),
        ({"extends": "a\0b.yaml"}, "extends: .* is no path"),
        ({"extends": [{"a": 1}]}, "extends: .* cannot be used"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "top.yaml", **content)
    with pytest.raises(ConfigError, match=message):
        read_extended(path)
