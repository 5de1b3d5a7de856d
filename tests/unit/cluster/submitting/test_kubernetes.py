"""``gpo submit --kubernetes``: the required and the forbidden contents of the objects."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli.submit import submit
from cluster.config import load_config
from cluster.submitting.jobs import JobSpec
from cluster.submitting.kubernetes import Manifest, as_yaml, manifest, object_name
from cluster.sweep.config import load_sweep
from tests.configs import refused, submitted_config
from tests.paths import ROOT

KEY = "correct-horse-battery"
_SWEEP = {"sweep": {"space": {"optimizer.candidates": {"low": 2, "high": 4}}}}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a configuration and its data."""
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    for split, text in {"train": "a", "val": "c", "test": "e"}.items():
        (folder / f"data/{split}.jsonl").write_text(f'{{"input": "{text}", "target": "b"}}\n', encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(submitted_config()), encoding="utf-8")
    return folder


def _refusal(action: Callable[[], object]) -> str:
    return str(refused(action))


@pytest.mark.parametrize(
    ("cache", "is_said"),
    [
        ({"cache": {}}, True),
        ({"cache": {"path": "/storage/completions.sqlite"}}, False),
        ({"cache": {"kind": "none"}}, False),
        ({}, False),  # the platform's Redis
    ],
)
def test_a_cache_that_is_lost_with_its_pod_is_mentioned(
    cache: dict[str, Any], is_said: bool, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "config.yaml").write_text(yaml.safe_dump(submitted_config() | cache), encoding="utf-8")
    assert submit(work / "config.yaml", kubernetes=True, image="gpo:dev") == 0
    assert ("cache.kind is sqlite" in capsys.readouterr().err) == is_said


@pytest.mark.parametrize(
    ("sections", "refused"),
    [
        ({"cache": {"path": "completions.sqlite"}}, "cache.path"),
        ({"cache": {"path": "/storage/completions.sqlite"}}, None),
        ({"models": {"task": {"model": "t", "api_key_file": "token"}}}, "models.task.api_key_file"),
        ({"models": {"task": {"model": "t", "api_key_file": "/secrets/token"}}}, None),
    ],
)
def test_a_ray_job_refuses_paths_in_the_configurations_folder(
    sections: dict[str, Any], refused: str | None, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = submitted_config()
    raw["models"] |= sections.get("models", {})
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(raw | {"cache": sections.get("cache", {"kind": "none"})}), encoding="utf-8")
    (work / "token").write_text(KEY, encoding="utf-8")
    if refused is None:
        assert submit(path, kubernetes=True, image="i:1", run_id="first") == 0
    else:
        said = _refusal(lambda: submit(path, kubernetes=True, image="i:1", run_id="first"))
        assert said.startswith(f"{refused}:")
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("data/train.jsonl", KEY),
        ("data/train.jsonl", "sk-" + "a1B2" * 10),
        ("models.task.sampling.extra.metadata.token", KEY),
        ("models.task.sampling.extra.metadata.token", "sk-" + "a1B2" * 10),
        ("models.task.sampling.extra.metadata.token", 'a key: it\'s of\n\ttwo "lines"'),
        ("models.optimizer.base_url", "study-password"),
        ("--run-id", KEY),
        ("--run-dir", KEY),
    ],
)
def test_no_key_gets_into_a_config_map(option: str, text: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY if text.startswith("sk-") else text)
    monkeypatch.setenv("STUDY_URL", "redis://:study-password@host")
    raw = submitted_config() | {"sweep": {**_SWEEP["sweep"], "storage": {"kind": "url", "url_env": "STUDY_URL"}}}
    options: dict[str, Any] = {}
    if option == "data/train.jsonl":
        (work / option).write_text(f'{{"input": "a", "target": "{text}"}}\n', encoding="utf-8")
    elif option.startswith("--"):
        options = {"run_id": text} if option == "--run-id" else {"run_dir": f"/storage/{text}/x"}
    elif option.endswith("base_url"):
        raw["models"]["optimizer"]["base_url"] = f"http://{text}/v1"
    else:
        raw["models"]["task"]["sampling"] = {"extra": {"metadata": {"token": text}}}
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    said = _refusal(lambda: submit(path, sweep=True, kubernetes=True, image="i:1", **options))
    assert "keys are never shipped" in said
    assert text not in said
    assert (Path(option).name if "/" in option else option) in said


def test_a_valid_kubernetes_name_is_kept() -> None:
    for run_id in ("triage-20261121-173238-ab12", "first", "n"):
        assert object_name(run_id) == run_id


def test_no_two_runs_share_a_name() -> None:
    long = ["x" * 100 + "-a-" + "y" * 100, "x" * 100 + "-b-" + "y" * 100, "z" * 46 + "-z"]
    ids = ["run-1", "Run-1", "run_1", "Run_1", "run.1", "run-1-", "7-tasks", "gpo-7-tasks", "_", "__", "gpo", *long]
    names = [object_name(run_id) for run_id in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 47


def test_resuming_a_run_uses_the_new_configuration(work: Path) -> None:
    def made(steps: int) -> Manifest:
        config = load_config(work / "config.yaml", [f"optimizer.steps={steps}"])
        spec = JobSpec("run", "", (), "first", "/storage/runs/first")
        return manifest(work / "config.yaml", config, None, spec, image="i:1", namespace="gpo")

    before, again, other = made(2), made(2), made(3)
    assert before.config_map == again.config_map
    assert before.job == again.job
    assert before.job["metadata"] == other.job["metadata"]
    # Kubernetes refuses to change it.
    assert other.config_map["immutable"]
    assert before.config_map["metadata"]["name"] != other.config_map["metadata"]["name"]
    for item in (before, other):
        volumes = item.job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
        assert {"name": "job", "configMap": {"name": item.config_map["metadata"]["name"]}} in volumes
    (work / "data/val.jsonl").write_text('{"input": "x", "target": "d"}\n', encoding="utf-8")
    assert made(2).config_map["metadata"]["name"] != before.config_map["metadata"]["name"]


@pytest.mark.parametrize("text", ["n", "y", "N", "no", "1e3", "0o17", "0x1f", "1_000", "12:30", "-.5", "~", "true"])
def test_ambiguous_texts_are_quoted(text: str) -> None:
    written = as_yaml({text: [text]}).strip()
    assert re.fullmatch(r"""(["']).+\1:\n- (["']).+\2""", written), written
    assert yaml.safe_load(written) == {text: [text]}


def test_a_ray_job_carries_the_configuration_and_its_data(work: Path) -> None:
    config = load_config(work / "config.yaml", ["optimizer.steps=2"])
    spec = JobSpec("run", "", ("optimizer.steps=2",), "First", "/storage/runs/First")
    text = manifest(work / "config.yaml", config, None, spec, image="r.example/gpo:1", namespace="team").text
    settings, job = yaml.safe_load_all(text)
    assert {item["metadata"]["namespace"] for item in (settings, job)} == {"team"}
    inner = yaml.safe_load(settings["data"]["config.yaml"])
    assert inner["optimizer"]["steps"] == 2
    assert "base_url" not in inner["models"]["task"], "the cluster's own OPENAI_BASE_URL decides"
    place = inner["tasks"][0]["data"]["val"]
    assert settings["data"][Path(place).name] == (work / "data/val.jsonl").read_text(encoding="utf-8")
    assert job["spec"]["entrypoint"] == (
        "python -m cluster.cli run /etc/gpo/job/config.yaml --run-id First --run-dir /storage/runs/First "
        "--deadline 84000 --budget-ok --resume"
    )
    cluster = job["spec"]["rayClusterSpec"]
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        pod = template["spec"]
        assert {"name": "job", "configMap": {"name": settings["metadata"]["name"]}} in pod["volumes"]
        assert pod["containers"][0]["image"] == "r.example/gpo:1"
        assert Path(place).parent == Path(pod["containers"][0]["volumeMounts"][-1]["mountPath"])


def test_a_ray_job_carries_a_sweep_with_its_held_out_tasks(work: Path) -> None:
    held_out = {**submitted_config()["tasks"][0], "name": "other"}
    held_out["data"] = {**held_out["data"], "val": "data/unused.jsonl"}
    (work / "data/unused.jsonl").write_text('{"input": "g", "target": "h"}\n', encoding="utf-8")
    raw = {"sweep": {**_SWEEP["sweep"], "holdout": {"tasks": [held_out]}}}
    (work / "config.yaml").write_text(yaml.safe_dump(submitted_config() | raw), encoding="utf-8")
    sweep = load_sweep(work / "config.yaml", [])
    spec = JobSpec("sweep", "", (), "First", "/storage/runs/First")
    text = manifest(work / "config.yaml", sweep.base, sweep, spec, image="i:1", namespace="gpo").text
    settings, job = yaml.safe_load_all(text)
    inner = yaml.safe_load(settings["data"]["config.yaml"])
    place = inner["sweep"]["holdout"]["tasks"][0]["data"]["val"]
    assert settings["data"][Path(place).name].startswith('{"input": "g"')
    # What is paid for, and which trials there are, outlives the cluster.
    assert inner["cache"] == {"kind": "redis", "url_env": "GPO_REDIS_URL"}
    assert inner["metrics"] == {"port": 9464, "host": "0.0.0.0"}  # noqa: S104
    assert (inner["sweep"]["study"], inner["sweep"]["storage"]["url_env"]) == (
        object_name("First"),
        "GPO_STUDY_URL",
    )
    assert job["spec"]["entrypoint"] == (
        "python -m cluster.cli sweep /etc/gpo/job/config.yaml --run-dir /storage/runs/First "
        "--deadline 602400 --budget-ok --resume"
    )
    assert job["spec"]["activeDeadlineSeconds"] == 604_800, "a sweep's, not a run's"


def test_the_bound_on_a_run_decides_its_deadline(work: Path) -> None:
    config = load_config(work / "config.yaml", ["budget.wall_s=1000.5"])
    spec = JobSpec("run", "", (), "first", "/storage/runs/first")
    job = manifest(work / "config.yaml", config, None, spec, image="i:1", namespace="gpo").job["spec"]
    # KubeRay's comes later: after the time to start nodes, and the time to save.
    assert job["activeDeadlineSeconds"] == 1001 + job["preRunningDeadlineSeconds"] + 600
    assert "--deadline 1001 --budget-ok" in job["entrypoint"]


def test_no_map_is_empty_since_kubernetes_would_drop_it(work: Path) -> None:
    def empty(value: Any, path: str = "") -> list[str]:
        below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        found = [one for name, inner in below for one in empty(inner, f"{path}.{name}")]
        return [*found, path] if value == {} else found

    config = load_config(work / "config.yaml")
    spec = JobSpec("run", "", (), "first", "/storage/runs/first")
    made = manifest(work / "config.yaml", config, None, spec, image="i:1", namespace="gpo")
    assert empty(made.config_map) == []
    # The RayJob may change, and this map is one that the schema asks for.
    assert empty(made.job) == [".spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams"]


def test_files_too_large_for_a_config_map_are_refused(work: Path) -> None:
    spec = JobSpec("run", "", (), "first", "/storage/runs/first")
    (work / "data/val.jsonl").write_text("x" * 1_000_000, encoding="utf-8")
    config = load_config(work / "config.yaml")
    said = _refusal(lambda: manifest(work / "config.yaml", config, None, spec, image="i:1", namespace="gpo"))
    assert "1.0 MB" in said
    said = _refusal(lambda: manifest(work / "config.yaml", config, None, spec, image=None, namespace="gpo"))
    assert "--image" in said
    quickstart = ROOT / "configs/quickstart.yaml"
    said = _refusal(lambda: manifest(quickstart, load_config(quickstart), None, spec, image="i:1", namespace="gpo"))
    assert "serves one machine" in said
