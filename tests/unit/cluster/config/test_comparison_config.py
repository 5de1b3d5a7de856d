from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import load_config
from cluster.config.comparison import load_comparison
from gpo.errors import ConfigError

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
RUN = {
    "models": {"task": MODEL, "optimizer": MODEL},
    "tasks": [{"name": "desk", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}}],
    "optimizer": {"steps": 4, "candidates": 2},
}
OWN = {
    "schedule": {"initial": 40, "warmup_steps": 2},
    "refinement": {"enforce": True},
    "acceptance": {"kind": "within_error"},
}


def write(path: Path, **sections: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
    return path


def test_a_comparison_is_not_loaded_as_a_run(tmp_path: Path) -> None:
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


def test_methods_on_the_command_line_replace_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", optimizer={"schedule": {"kind": "none"}})
    path = write(tmp_path / "configs" / "top.yaml", **RUN, compare=["gpo"])
    assert list(load_comparison(path, (), ["opro", "mine.yaml"]).methods) == ["opro", "mine"]


@pytest.mark.parametrize(
    ("compare", "named", "message"),
    [
        (["gpo", "gpo"], (), "duplicate method 'gpo'"),
        (["gop"], (), "'gop' is not a method; did you mean 'gpo'"),
        (None, ["gone.yaml"], "--method: .*gone.yaml. does not exist"),
        ([], (), "is not a list of methods"),
        ("gpo", (), "is not a list of methods"),
        ([3], (), "3 cannot be used"),
        ({"a/b": None}, (), "'a/b' cannot name a method"),
        ({"comparison.json": "ape"}, (), "cannot name a method"),
        (["./..yaml"], (), "cannot name a method"),
        (["~nobody-of-this-name/x.yaml"], (), "is not a path"),
        ({"a": {"optimizer": {"steps": 3}}}, (), "compare.a.optimizer.steps: is the same for all methods"),
        ({"a": {"optimizer": {"candidates": 3}}}, (), "compare.a.optimizer.candidates: is the same for all methods"),
        ({"a": 3}, (), "compare.a: 3 cannot be used"),
        ({"a": {"tasks": []}}, (), "compare.a.tasks: cannot differ between methods"),
        ({"a": {"optimizer": {"stepps": 3}}}, (), "compare.a: optimizer.stepps: .* did you mean 'steps'"),
    ],
)
def test_an_invalid_comparison_is_refused_by_name(
    tmp_path: Path, compare: Any, named: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "..yaml", optimizer={})
    path = write(tmp_path / "top.yaml", **RUN, **({} if compare is None else {"compare": compare}))
    with pytest.raises(ConfigError, match=message):
        load_comparison(path, (), named)


def test_a_method_file_replaces_its_sections(tmp_path: Path) -> None:
    optimizer = {**RUN["optimizer"], **OWN}
    path = write(tmp_path / "top.yaml", **{**RUN, "optimizer": optimizer})
    methods = load_comparison(path, (), ["gpo", "pe2", "ape", "own"]).methods
    assert [config.optimizer.schedule.warmup_steps for config in methods.values()] == [0, 0, 0, 2]
    assert [config.optimizer.refinement.enforce for config in methods.values()] == [False, False, False, True]
    # Methods are compared in the terms of the paper, unless the file says otherwise.
    assert methods["own"] == load_config(path, ["preset=paper"])
    assert {config.optimizer.steps for config in methods.values()} == {4}


def test_an_inline_method_is_merged_over_the_configuration(tmp_path: Path) -> None:
    compare = {"short": {"optimizer": {"schedule": {"final": 5}}}}
    path = write(tmp_path / "top.yaml", **{**RUN, "optimizer": {**RUN["optimizer"], **OWN}}, compare=compare)
    assert load_comparison(path, (), ()).methods["short"].optimizer.schedule.model_dump() == {
        "kind": "cosine", "initial": 40, "final": 5, "warmup_steps": 2,
    }  # fmt: skip


def test_an_override_without_effect_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "top.yaml", **RUN)
    with pytest.raises(ConfigError, match="has no effect") as caught:
        load_comparison(path, ["optimizer.schedule.initial=20"], ())
    assert caught.value.field == "--set optimizer.schedule.initial"
    methods = load_comparison(path, ["optimizer.schedule.initial=20", "optimizer.steps=3"], ["own", "ape"]).methods
    assert methods["own"].optimizer.schedule.initial == 20
    assert methods["ape"].optimizer.schedule.kind == "none"
