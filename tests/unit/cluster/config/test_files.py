"""Files that extend others, and sections laid over sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cluster.config import load_config
from cluster.config.comparison import load_comparison
from cluster.config.files import default_kinds, laid_over, read_extended
from cluster.config.loading import validate
from cluster.config.run import RunConfig
from cluster.config.section import declared, sections_in
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


def test_later_files_override_earlier_ones_and_the_file_overrides_all(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", run={"name": "one", "dir": "there"}, optimizer={"steps": 1})
    write(tmp_path / "two.yaml", run={"name": "two"})
    path = write(tmp_path / "top.yaml", extends=["one.yaml", "two.yaml"], optimizer={"candidates": 3})
    assert read_extended(path) == {"run": {"name": "two", "dir": "there"}, "optimizer": {"steps": 1, "candidates": 3}}


def test_a_path_starts_at_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "base" / "run.yaml", **RUN)
    config = load_config(write(tmp_path / "elsewhere" / "top.yaml", extends="../base/run.yaml"))
    data = config.tasks[0].data
    assert (data.train, data.test) == (tmp_path / "base" / "a.jsonl", Path("/c.jsonl"))


@pytest.mark.parametrize(
    "section",
    [{"cache": {"path": "c.sqlite"}}, {"models": {**RUN["models"], "task": {**MODEL, "api_key_file": "key"}}}],
)
def test_cache_and_key_paths_start_at_the_file_that_names_them(section: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "base" / "run.yaml", **{**RUN, **section})
    config = load_config(write(tmp_path / "elsewhere" / "top.yaml", extends="../base/run.yaml"))
    key_file = config.models.task.api_key_file
    assert (config.cache.path or key_file).parent == tmp_path / "base"


def test_methods_of_an_extended_file_are_found_in_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "base" / "mine.yaml", optimizer={"schedule": {"kind": "none"}})
    write(tmp_path / "base" / "run.yaml", **RUN, compare=["gpo", "mine.yaml"])
    path = write(tmp_path / "elsewhere" / "top.yaml", extends="../base/run.yaml")
    assert load_comparison(path, (), ()).methods["mine"].optimizer.schedule.kind == "none"


def test_functions_are_found_in_the_folder_of_the_file_that_names_them(tmp_path: Path) -> None:
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
        ({"extends": "~nobody-of-this-name/x.yaml"}, "extends: .* is not a path"),
        ({"extends": "a\0b.yaml"}, "extends: .* is not a path"),
        ({"extends": [{"a": 1}]}, "extends: .* cannot be used"),
    ],
)
def test_an_invalid_extends_is_refused_by_name(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "top.yaml", **content)
    with pytest.raises(ConfigError, match=message):
        read_extended(path)


def test_sections_are_merged_and_other_values_replaced() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert laid_over(base, {"a": {"c": [3]}, "e": {"f": 2}}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": {"f": 2}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"kind": "cosine", "initial": 50}, {"kind": "none"}, {"kind": "none"}),
        ({"initial": 50}, {"kind": "none"}, {"kind": "none"}),
        ({"initial": 50}, {"kind": "cosine", "final": 9}, {"kind": "cosine", "initial": 50, "final": 9}),
        ({"kind": "linear", "initial": 50}, {"final": 9}, {"kind": "linear", "initial": 50, "final": 9}),
        ({"kind": "linear", "initial": 50}, {"kind": "cosine"}, {"kind": "cosine"}),
    ],
)
def test_a_section_of_another_kind_replaces(
    below: dict[str, Any], above: dict[str, Any], expected: dict[str, Any]
) -> None:
    base, changes = {"optimizer": {"schedule": below}}, {"optimizer": {"schedule": above}}
    assert laid_over(base, changes) == {"optimizer": {"schedule": expected}}


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"model": "a", "base_url": "u"}, {"kind": "embedded"}, {"kind": "embedded"}),
        ({"kind": "embedded", "parallel": 2}, {"model": "a"}, {"model": "a"}),
        ({"kind": "embedded"}, {"parallel": 2}, {"kind": "embedded", "parallel": 2}),
        ({"model": "a", "base_url": "u"}, {"model": "b"}, {"model": "b", "base_url": "u"}),
    ],
)
def test_a_section_with_a_model_is_an_endpoint(
    below: dict[str, Any], above: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert laid_over({"models": {"task": below}}, {"models": {"task": above}}) == {"models": {"task": expected}}


def test_steps_and_epochs_replace_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", **{**RUN, "optimizer": {"steps": 4}})
    write(tmp_path / "top.yaml", extends="run.yaml", optimizer={"epochs": 3})
    lengths = [
        (load_config(file, overrides).optimizer.steps, load_config(file, overrides).optimizer.epochs)
        for file, overrides in (
            (path, ()), (path, ["optimizer.epochs=2"]), (tmp_path / "top.yaml", ()),
            (tmp_path / "top.yaml", ["optimizer.steps=5"]),
        )
    ]  # fmt: skip
    assert lengths == [(4, None), (None, 2), (None, 3), (5, None)]
    with pytest.raises(ConfigError, match="is set as well as steps"):
        validate({**RUN, "optimizer": {"steps": 4, "epochs": 3}}, base_dir=tmp_path)


def test_an_epoch_is_as_many_steps_as_train_has_batches() -> None:
    optimizer = validate({**RUN, "optimizer": {"epochs": 3, "batch_size": 8}}, base_dir=Path("/")).optimizer
    assert [optimizer.num_steps(count) for count in (1, 8, 9, 48)] == [3, 3, 6, 18]


@pytest.mark.parametrize("field", ["train", "api_key_file"])
def test_the_home_of_an_unknown_user_is_named(field: str) -> None:
    path = "~nobody-of-this-name/x"
    changes: dict[str, Any] = {"tasks": [{"name": "a", "data": {"train": path, "val": "b", "test": "c"}}]}
    if field == "api_key_file":
        changes = {"models": {"task": {**MODEL, "api_key_file": path}, "optimizer": MODEL}}
    with pytest.raises(ConfigError, match="is not a path"):
        validate({**RUN, **changes}, base_dir=Path("/"))


def test_the_default_kinds_agree_with_validation() -> None:
    """The table that layers are merged by agrees with how sections are validated."""
    fields = dict(declared(RunConfig))
    assert len(default_kinds()) == 10
    for path, kind in default_kinds().items():
        (first, *others) = sections_in(fields[path].annotation)
        assert first.model_fields["kind"].default == kind
        for other in others:
            with pytest.raises(ValidationError):
                other.model_validate({"kind": kind})
