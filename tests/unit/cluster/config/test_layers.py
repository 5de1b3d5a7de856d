from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import load_config
from cluster.config.files import _DEFAULT_KINDS, laid_over
from cluster.config.loading import validate
from gpo.errors import ConfigError

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
RUN = {
    "models": {"task": MODEL, "optimizer": MODEL},
    "tasks": [{"name": "desk", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}}],
}


def test_sections_are_merged_and_all_else_is_replaced() -> None:
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
def test_a_model_that_is_named_is_one_of_an_endpoint(
    below: dict[str, Any], above: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert laid_over({"models": {"task": below}}, {"models": {"task": above}}) == {"models": {"task": expected}}


def test_the_default_kinds_are_those_of_the_sections() -> None:
    config = validate({**RUN, "models": {**RUN["models"], "judge": MODEL}}, base_dir=Path("/"))
    for place, kind in _DEFAULT_KINDS.items():
        section: Any = config
        for name in place.split("."):
            section = getattr(section, name)
        assert section.kind == kind, place


def test_steps_and_epochs_take_each_others_place(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**RUN, "optimizer": {"steps": 4}}), encoding="utf-8")
    (tmp_path / "top.yaml").write_text("extends: run.yaml\noptimizer: {epochs: 3}\n", encoding="utf-8")
    lengths = [
        (load_config(file, overrides).optimizer.steps, load_config(file, overrides).optimizer.epochs)
        for file, overrides in (
            (path, ()), (path, ["optimizer.epochs=2"]), (tmp_path / "top.yaml", ()),
            (tmp_path / "top.yaml", ["optimizer.steps=5"]),
        )
    ]  # fmt: skip
    assert lengths == [(4, None), (None, 2), (None, 3), (5, None)]
    with pytest.raises(ConfigError, match="is set beside steps"):
        validate({**RUN, "optimizer": {"steps": 4, "epochs": 3}}, base_dir=tmp_path)


def test_an_epoch_is_as_many_steps_as_train_has_batches() -> None:
    optimizer = validate({**RUN, "optimizer": {"epochs": 3, "batch_size": 8}}, base_dir=Path("/")).optimizer
    assert [optimizer.num_steps(count) for count in (1, 8, 9, 48)] == [3, 3, 6, 18]


@pytest.mark.parametrize("field", ["train", "api_key_file"])
def test_a_home_of_nobody_is_named(field: str) -> None:
    place = "~nobody-of-this-name/x"
    changes: dict[str, Any] = {"tasks": [{"name": "a", "data": {"train": place, "val": "b", "test": "c"}}]}
    if field == "api_key_file":
        changes = {"models": {"task": {**MODEL, "api_key_file": place}, "optimizer": MODEL}}
    with pytest.raises(ConfigError, match="is no path"):
        validate({**RUN, **changes}, base_dir=Path("/"))
