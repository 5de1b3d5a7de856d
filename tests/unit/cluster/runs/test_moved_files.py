"""A run, sweep or comparison resumes where its files are elsewhere: in another pod, and in another job's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.folder import Folder
from cluster.comparing.compare import ComparisonFolder
from cluster.config import load_config
from cluster.runs.run_folder import RunFolder
from cluster.session.models import build_tasks
from cluster.sweep.config import load_sweep
from cluster.sweep.confirmation import confirmation_key
from cluster.sweep.storage import open_storage
from cluster.sweep.study import SharedStudy
from gpo.errors import ConfigError
from tests.mounts import mount

_MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
_METRIC = "def metric(answer, example):\n    return answer == example['target']\n"
_META = "{{ prompt }} {{ rules | join(' ') }} Write another one between <START> and <END>."
_SPACE = {"optimizer.candidates": {"low": 2, "high": 4}}


def files(target: str = "b", **sections: Any) -> dict[str, str]:
    """A configuration that names files of every kind, and these files; all in one folder, as in a ConfigMap."""
    task = {
        "name": "desk",
        "data": {"train": "train.jsonl", "val": "./val.jsonl", "test": "test.jsonl"},
        "prompt": {"file": "prompts.txt"},
        "answer": {"kind": "custom", "metric": "scores:metric"},
    }
    optimizer = {"steps": 2, "candidates": 2, "meta_prompt": {"template": "meta.txt"}}
    base = {"models": {"task": _MODEL, "optimizer": _MODEL}, "tasks": [task], "optimizer": optimizer}
    rows = {f"{split}.jsonl": json.dumps({"input": split, "target": target}) for split in ("train", "val", "test")}
    texts = {"scores.py": _METRIC, "meta.txt": _META, "prompts.txt": "Which desk?\nName the desk.\n", **rows}
    return {
        "base.yaml": yaml.safe_dump(base),
        "run.yaml": yaml.safe_dump({"extends": "base.yaml", **sections}),
        **texts,
    }


def in_another_pod(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Mounts a ConfigMap's files; the configuration's path, which each mount shares."""
    folder, stamps = tmp_path / "configs", iter("abc")

    def mounted(texts: Mapping[str, str]) -> Path:
        mount(folder, texts, next(stamps))
        return folder / "run.yaml"

    return mounted


def in_another_job(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Unpacks a submitted folder; Ray names each one after its content."""
    names = iter("abc")

    def unpacked(texts: Mapping[str, str]) -> Path:
        folder = tmp_path / f"_ray_pkg_{next(names)}"
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder / "run.yaml"

    return unpacked


_ELSEWHERE = pytest.mark.parametrize("laid_out", [in_another_pod, in_another_job])
_LaidOut = Callable[[Path], Callable[[Mapping[str, str]], Path]]


@_ELSEWHERE
def test_a_run_resumes_with_the_same_files_elsewhere(laid_out: _LaidOut, tmp_path: Path) -> None:
    place, run_folder = laid_out(tmp_path), RunFolder(Folder.at(str(tmp_path / "run")))

    def opened(path: Path) -> None:
        config = load_config(path)
        run_folder.open(config, build_tasks(config), run_id="run", resume=True)

    opened(place(files()))
    opened(place(files()))
    with pytest.raises(ConfigError, match="the examples of 'desk' are not those"):
        opened(place(files(target="c")))


def test_a_run_does_not_resume_with_another_function_elsewhere(tmp_path: Path) -> None:
    place, run_folder = in_another_job(tmp_path), RunFolder(Folder.at(str(tmp_path / "run")))

    def opened(texts: Mapping[str, str]) -> None:
        config = load_config(place(texts))
        run_folder.open(config, build_tasks(config), run_id="run", resume=True)

    opened(files())
    opened(files())
    with pytest.raises(ConfigError, match=r"tasks\[0\]\.answer\.metric"):
        opened({**files(), "scores.py": _METRIC.replace("==", "!=")})


_EMBEDDED = {"kind": "embedded", "gguf": "model.gguf"}
_WEIGHTS = {
    "model.gguf": "weights",
    "run.yaml": yaml.safe_dump({"extends": "base.yaml", "models": {"task": _EMBEDDED}}),
}


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        ({"meta.txt": _META + " Be brief."}, r"optimizer\.meta_prompt\.text"),
        ({"model.gguf": "other weights"}, r"models\.task\.gguf"),
    ],
)
@_ELSEWHERE
def test_a_run_does_not_resume_with_another_meta_prompt_or_other_weights(
    laid_out: _LaidOut, changed: Mapping[str, str], option: str, tmp_path: Path
) -> None:
    place, run_folder = laid_out(tmp_path), RunFolder(Folder.at(str(tmp_path / "run")))

    def opened(texts: Mapping[str, str]) -> None:
        config = load_config(place({**files(), **_WEIGHTS, **texts}))
        run_folder.open(config, build_tasks(config), run_id="run", resume=True)

    opened({})
    opened({})
    with pytest.raises(ConfigError, match=option):
        opened(changed)


@_ELSEWHERE
def test_a_comparison_resumes_with_the_same_files_elsewhere(laid_out: _LaidOut, tmp_path: Path) -> None:
    place, folder = laid_out(tmp_path), ComparisonFolder(Folder.at(str(tmp_path / "comparison")))

    def opened(path: Path) -> None:
        config = load_config(path)
        folder.open({"one": config, "two": config}, build_tasks(config), run_id="run", resume=True)

    opened(place(files()))
    opened(place(files()))
    with pytest.raises(ConfigError, match="the examples of 'desk' are not those"):
        opened(place(files(target="c")))


@_ELSEWHERE
def test_a_sweep_resumes_with_the_same_files_elsewhere(laid_out: _LaidOut, tmp_path: Path) -> None:
    place, folder = laid_out(tmp_path), tmp_path / "sweep"
    folder.mkdir()
    held_out = {**yaml.safe_load(files()["base.yaml"])["tasks"][0], "name": "other"}
    section = {"trials": 2, "space": _SPACE, "holdout": {"tasks": [held_out]}}

    def opened(path: Path) -> str:
        config = load_sweep(path, [])
        SharedStudy(config, open_storage(config.section.storage, Folder.at(str(folder))), str)
        return confirmation_key(config, {"optimizer.candidates": 3})

    first = opened(place(files(sweep=section)))
    assert opened(place(files(sweep=section))) == first, "the confirmation would be paid for again"
    with pytest.raises(ConfigError, match="the examples of 'desk' are not those that the study"):
        opened(place(files(target="c", sweep=section)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"meta.txt": _META + " Be brief."}, r"optimizer\.meta_prompt\.text: the study 'run' has"),
        ({"model.gguf": "other weights"}, r"models\.task\.gguf: the file is not the one that the study 'run' began"),
        (
            {"scores.py": _METRIC.replace("==", "!=")},
            r"tasks\[0\]\.answer\.metric: the function is not the one that the study 'run' began with; restore it, or",
        ),
    ],
)
def test_a_sweep_does_not_resume_with_another_function_or_other_weights(
    changed: Mapping[str, str], message: str, tmp_path: Path
) -> None:
    place, folder = in_another_job(tmp_path), tmp_path / "sweep"
    folder.mkdir()
    section = {"trials": 2, "space": _SPACE}

    def opened(texts: Mapping[str, str]) -> None:
        known = files(sweep=section, models={"task": _EMBEDDED})
        config = load_sweep(place({**known, "model.gguf": "weights", **texts}), [])
        SharedStudy(config, open_storage(config.section.storage, Folder.at(str(folder))), str)

    opened({})
    opened({})
    with pytest.raises(ConfigError, match=message):
        opened(changed)


def test_another_function_of_held_out_tasks_needs_another_confirmation(tmp_path: Path) -> None:
    place = in_another_job(tmp_path)
    held_out = {**yaml.safe_load(files()["base.yaml"])["tasks"][0], "name": "other"}
    section = {"trials": 2, "space": _SPACE, "holdout": {"tasks": [held_out]}}

    def key(texts: Mapping[str, str]) -> str:
        return confirmation_key(load_sweep(place({**files(sweep=section), **texts}), []), {"optimizer.candidates": 3})

    first = key({})
    assert key({}) == first
    assert key({"scores.py": _METRIC.replace("==", "!=")}) != first
