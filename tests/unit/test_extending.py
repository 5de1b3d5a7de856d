from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import load_config
from cluster.config.comparison import load_comparison
from cluster.config.extending import laid_over, read_extended
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


def test_sections_are_merged_and_all_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert laid_over(base, {"a": {"c": [3]}, "e": {"f": 2}}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": {"f": 2}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_a_section_of_another_kind_replaces() -> None:
    base = {"schedule": {"kind": "cosine", "initial": 50}}
    assert laid_over(base, {"schedule": {"kind": "none"}}) == {"schedule": {"kind": "none"}}
    assert laid_over(base, {"schedule": {"initial": 9}})["schedule"] == {"kind": "cosine", "initial": 9}
    assert laid_over(base, {"schedule": {"kind": "cosine", "final": 9}})["schedule"]["initial"] == 50


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
        ({"extends": [{"a": 1}]}, "extends: .* cannot be used"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "top.yaml", **content)
    with pytest.raises(ConfigError, match=message):
        read_extended(path)


def test_a_run_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gpo compare"):
        load_config(write(tmp_path / "top.yaml", **RUN, compare=["gpo"]))


def test_methods_are_laid_over_the_file_and_its_overrides(tmp_path: Path) -> None:
    write(tmp_path / "mine.yaml", optimizer={"schedule": {"kind": "fixed", "initial": 7}})
    compare = {"gpo": None, "ape": "ape", "mine": "mine.yaml", "short": {"optimizer": {"schedule": {"final": 5}}}}
    path = write(tmp_path / "top.yaml", **RUN, compare=compare)
    methods = load_comparison(path, ["optimizer.steps=9"], ()).methods
    assert list(methods) == ["gpo", "ape", "mine", "short"]
    assert {config.optimizer.num_steps(1) for config in methods.values()} == {9}
    assert methods["gpo"].optimizer.schedule.kind == "cosine"
    assert methods["ape"].optimizer.refinement.kind == "paraphrase"
    assert methods["mine"].optimizer.schedule.initial == 7
    assert methods["short"].optimizer.schedule.final == 5


def test_methods_named_on_the_command_line_go_before_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", optimizer={"schedule": {"kind": "none"}})
    path = write(tmp_path / "configs" / "top.yaml", **RUN, compare=["gpo"])
    assert list(load_comparison(path, (), ["opro", "mine.yaml"]).methods) == ["opro", "mine"]


@pytest.mark.parametrize(
    ("compare", "named", "message"),
    [
        (["gpo", "gpo"], (), "'gpo' stands twice"),
        (["gop"], (), "'gop' is no method; did you mean 'gpo'"),
        (None, ["gone.yaml"], "--method: .*gone.yaml. does not exist"),
        ([], (), "names no method"),
        ("gpo", (), "names no method"),
        ([3], (), "3 cannot be used"),
        ({"a/b": None}, (), "is no name"),
        ({"a": 3}, (), "compare.a: 3 cannot be used"),
        ({"a": {"tasks": []}}, (), "compare.a.tasks: is not what a method may change"),
        ({"a": {"optimizer": {"stepps": 3}}}, (), "compare.a: optimizer.stepps: .* did you mean 'steps'"),
    ],
)
def test_what_cannot_be_compared_is_named(
    tmp_path: Path, compare: Any, named: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "top.yaml", **RUN, **({} if compare is None else {"compare": compare}))
    with pytest.raises(ConfigError, match=message):
        load_comparison(path, (), named)
