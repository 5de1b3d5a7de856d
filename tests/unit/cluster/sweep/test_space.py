from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from cluster.config import load_config
from cluster.config.loading import validate
from cluster.config.sweep import SweepSection
from cluster.sweep.config import load_sweep
from cluster.sweep.space import Space
from gpo.errors import ConfigError
from tests.paths import TRIAGE

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
RAW: dict[str, Any] = {
    "models": {"task": MODEL, "optimizer": MODEL},
    "tasks": [
        {
            "name": "triage",
            "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
            "fields": {"input": "text", "target": "label"},
        }
    ],
    "optimizer": {"steps": 4, "candidates": 2, "schedule": {"initial": 30, "final": 20}},
}
KIND, INITIAL, FINAL = (f"optimizer.schedule.{option}" for option in ("kind", "initial", "final"))
TEMPERATURE = "models.optimizer.sampling.temperature"


def space(**options: dict[str, Any]) -> Space:
    parsed = SweepSection.model_validate({"space": {name.replace("__", "."): at for name, at in options.items()}})
    return Space(RAW, validate(RAW, Path.cwd()), Path.cwd(), parsed.space)


def of(options: dict[str, dict[str, Any]]) -> Space:
    return space(**{path.replace(".", "__"): option for path, option in options.items()})


SCHEDULES = of(
    {
        FINAL: {"low": 2, "high": 40, "at_most": INITIAL, "when": {KIND: ["cosine", "linear"]}},
        INITIAL: {"low": 5, "high": 60},
        KIND: {"choices": ["cosine", "linear", "fixed"]},
    }
)


def test_values_are_set_at_their_paths() -> None:
    config = SCHEDULES.config({KIND: "linear", INITIAL: 7, FINAL: 3})
    assert (config.optimizer.schedule.kind, config.optimizer.schedule.initial) == ("linear", 7)
    assert config.optimizer.candidates == 2
    tuned = of({TEMPERATURE: {"low": 0.1, "high": 1.9}}).config({TEMPERATURE: 0.3})
    assert tuned.models.optimizer.sampling.temperature == 0.3
    assert tuned.models.task == SCHEDULES.base.models.task


def test_another_kind_drops_the_options_of_the_base_kind() -> None:
    assert SCHEDULES.config({KIND: "fixed"}).optimizer.schedule.initial == 50
    assert SCHEDULES.config({KIND: "cosine"}).optimizer.schedule.initial == 30


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler(seed=1), optuna.samplers.TPESampler(seed=1)])
def test_draws_respect_bounds_and_conditions(sampler: optuna.samplers.BaseSampler) -> None:
    study = optuna.create_study(sampler=sampler, direction="maximize")
    seen: set[object] = set()
    for _ in range(60):
        trial = study.ask()
        params = SCHEDULES.suggested(trial)
        seen.add(params[KIND])
        assert (FINAL in params) == (params[KIND] != "fixed")
        if FINAL in params:
            assert params[FINAL] <= params[INITIAL]  # type: ignore[operator]
        study.tell(trial, float(params[INITIAL] or 0))
    assert seen == {"cosine", "linear", "fixed"}


def test_a_lower_bound_keeps_the_grid_of_steps() -> None:
    by_two = of({INITIAL: {"choices": [3, 5]}, FINAL: {"low": 2, "high": 8, "step": 2, "at_least": INITIAL}})
    assert {(corner[INITIAL], corner[FINAL]) for corner in by_two._corners({}, by_two.order)} == {
        (3, 4), (3, 8), (5, 6), (5, 8),
    }  # fmt: skip


def test_a_suggestion_is_repeatable() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    trial = study.ask()
    params = SCHEDULES.suggested(trial)
    study.sampler = optuna.samplers.RandomSampler(seed=4)
    again = optuna.trial.Trial(study, trial._trial_id)
    assert SCHEDULES.suggested(again) == params


def test_the_papers_setting_is_used_where_the_space_has_it() -> None:
    assert SCHEDULES.paper == {KIND: "cosine", INITIAL: 50, FINAL: 10}


@pytest.mark.parametrize(
    ("path", "option", "nearest"),
    [
        (INITIAL, {"low": 5, "high": 40}, 40),
        (INITIAL, {"low": 7, "high": 80, "step": 20}, 47),
        ("optimizer.direction.trajectory.by", {"choices": ["recency", "importance"]}, "recency"),
        ("optimizer.direction.trajectory.k", {"low": 1, "high": 8}, 3),
        ("optimizer.candidates", {"choices": [2, 8]}, 8),
        ("optimizer.steps", {"low": 2, "high": 6}, 4),  # the paper counts epochs; the configuration says 4
        (TEMPERATURE, {"low": 0.2, "high": 2.0}, 1.0),
    ],
)
def test_otherwise_the_nearest_value_in_the_space_is_used(path: str, option: dict[str, Any], nearest: object) -> None:
    assert of({path: option}).paper == {path: nearest}


def test_corners_are_all_possible_combinations() -> None:
    corners = list(SCHEDULES.corners())
    assert {KIND: "fixed", INITIAL: 5} in corners
    assert {KIND: "linear", INITIAL: 5, FINAL: 5} in corners
    assert {KIND: "cosine", INITIAL: 60, FINAL: 40} in corners
    assert len(corners) == 2 * 1 + 2 * 2 * 2


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"optimizer.schedul.initial": {"low": 1, "high": 2}}, "sweep.space.optimizer.schedul.initial", "schedule"),
        ({"optimizer.schedule.begin": {"low": 1, "high": 2}}, "sweep.space.optimizer.schedule.begin", "initial"),
        ({"optimizer.candidates": {"low": 0, "high": 4}}, "sweep.space.optimizer.candidates", "cannot be 0"),
        ({"optimizer.candidates": {"low": 1.5, "high": 4}}, "sweep.space.optimizer.candidates", "cannot be 1.5"),
        ({"models.task.sampling.temperature": {"low": 0, "high": 1}}, "sweep.space.models.task", "same in all trials"),
        ({"evaluation.val_size": {"low": 2, "high": 9}}, "sweep.space.evaluation.val_size", "the same in all trials"),
        ({"optimizer.schedule.warmup_steps": {"low": 0, "high": 4}}, "sweep.space", "4 is too large for 4 steps"),
        (
            {FINAL: {"low": 20, "high": 30, "at_most": INITIAL}, INITIAL: {"low": 5, "high": 60}},
            f"sweep.space.{FINAL}",
            "no value left",
        ),
        ({FINAL: {"low": 2, "high": 9, "at_most": KIND}}, f"sweep.space.{FINAL}.at_most", "not a number"),
        ({FINAL: {"low": 2, "high": 9, "at_most": "optimizer.ste"}}, f"sweep.space.{FINAL}.at_most", "optimizer.ste"),
        (
            {FINAL: {"low": 2, "high": 9, "at_most": INITIAL}, INITIAL: {"low": 2, "high": 9, "at_least": FINAL}},
            "sweep.space.",
            "refers to itself",
        ),
        (
            {
                "optimizer.direction.trajectory.k": {"low": 0, "high": 3},
                "optimizer.direction.trajectory": {"choices": [1]},
            },
            "sweep.space.optimizer.direction.trajectory.k",
            "as a whole",
        ),
    ],
)  # fmt: skip
def test_an_invalid_space_is_refused_before_any_call(options: dict[str, dict[str, Any]], field: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(options).check([])
    assert caught.value.field.startswith(field)
    assert said in str(caught.value)


def write(path: Path, **sections: Any) -> Path:
    path.write_text(yaml.safe_dump({**RAW, **sections}, sort_keys=False), encoding="utf-8")
    return path


def test_a_sweep_and_a_run_refuse_each_others_files(tmp_path: Path) -> None:
    sweep = {"space": {INITIAL: {"low": 5, "high": 9}}}
    with pytest.raises(ConfigError, match="gpo sweep"):
        load_config(write(tmp_path / "sweep.yaml", sweep=sweep))
    with pytest.raises(ConfigError, match="gpo run"):
        load_sweep(write(tmp_path / "run.yaml"), ())


def test_a_sweep_loads_with_overrides_and_its_dump_loads_again(tmp_path: Path) -> None:
    held_out = {**RAW["tasks"][0], "name": "other"}
    path = write(
        tmp_path / "sweep.yaml",
        sweep={"space": {INITIAL: {"low": 5, "high": 9}}, "holdout": {"tasks": [held_out], "seeds": [3]}},
    )
    config = load_sweep(path, ("sweep.trials=5", "sweep.storage=sqlite:///x.db", "run.name=mine"))
    assert (config.section.trials, config.study, config.section.storage.kind) == (5, "mine", "url")
    assert [task.name for task in config.together.tasks] == ["triage", "other"]
    assert config.holdout is not None
    assert config.holdout.run.seeds == (3,)
    assert config.num_steps == 4
    again = tmp_path / "again.yaml"
    again.write_text(config.dump(), encoding="utf-8")
    reloaded = load_sweep(again, ())
    assert (reloaded.section, reloaded.base) == (config.section, config.base)


@pytest.mark.parametrize(
    ("sweep", "field", "said"),
    [
        ({"space": {}}, "sweep.space", "at least 1"),
        ({"space": {INITIAL: {"low": 9, "high": 5}}}, "low", "above high"),
        ({"space": {INITIAL: {"low": 0, "high": 5, "log": True}}}, "log", "positive"),
        ({"space": {INITIAL: {"low": 5.0, "high": 60}}}, INITIAL, "whole number"),
        ({"space": {INITIAL: {"low": 5, "high": 60, "step": 2.5}}}, INITIAL, "cannot be 7.5"),
        ({"space": {INITIAL: {"low": 1, "hihg": 5}}}, "hihg", "did you mean 'high'"),
        ({"space": {INITIAL: {"low": 1, "high": 5}}, "sampler": {"kind": "tpe2"}}, "sweep.sampler.kind", "tpe"),
        ({"space": {INITIAL: {"low": 1, "high": 5}}, "objectives": ["usd"]}, "sweep.objectives", "begin with val"),
        (
            {"space": {INITIAL: {"low": 1, "high": 5}}, "objectives": ["val", "usd"], "pruner": {"kind": "median"}},
            "sweep.pruner",
            "several objectives",
        ),
        (
            {"space": {INITIAL: {"low": 1, "high": 5}}, "storage": "postgresql://me:hush@host/db"},
            "sweep.storage.url_env",
            "holds a password",
        ),
        (
            {"space": {INITIAL: {"low": 1, "high": 5}}, "storage": "postgresql://me:pa/ss=hush@host/db"},
            "sweep.storage.url_env",
            "holds a password",
        ),
        (
            {"space": {INITIAL: {"low": 1, "high": 5}}, "storage": "postgresql://host/db?user=me&password=hush"},
            "sweep.storage.url_env",
            "holds a password",
        ),
        (
            {"space": {INITIAL: {"low": 1, "high": 5}}, "holdout": {"tasks": RAW["tasks"]}},
            "sweep.holdout",
            "is a tuning task",
        ),
    ],
)
def test_a_mistake_in_the_section_names_its_field(sweep: dict[str, Any], field: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(tmp_path / "sweep.yaml", sweep=sweep), ())
    assert field in caught.value.field
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


def test_paths_of_held_out_tasks_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "below" / f"{split}.jsonl").write_bytes((TRIAGE / f"{split}.jsonl").read_bytes())
    held_out = {**RAW["tasks"][0], "name": "other", "data": {s: f"{s}.jsonl" for s in ("train", "val", "test")}}
    write(tmp_path / "below" / "base.yaml", sweep={"holdout": {"tasks": [held_out]}})
    path = tmp_path / "sweep.yaml"
    top = {"extends": "below/base.yaml", "sweep": {"space": {INITIAL: {"low": 5, "high": 9}}}}
    path.write_text(yaml.safe_dump(top), encoding="utf-8")
    assert [task.name for task in load_sweep(path, ()).holdout_tasks] == ["other"]
