from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import submit_package
from cluster.config import RunConfig, load_config
from cluster.config.loading import validate
from cluster.submit import Order, _resolved, require_reachable
from cluster.submit_command import SubmitOptions, submit
from cluster.submit_kubernetes import Manifest, as_yaml, manifest, object_name
from cluster.submit_package import Package, package, require_not_shipped
from cluster.sweep.loading import load_sweep
from gpo.errors import ClusterError, ConfigError

KEY = "correct-horse-battery"
_SWEEP = {"sweep": {"space": {"optimizer.candidates": {"low": 2, "high": 4}}}}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder as people have them."""
    folder = tmp_path / "work"
    for name, text in {
        "config.yaml": yaml.safe_dump(_config()),
        "data/train.jsonl": '{"input": "a", "target": "b"}\n',
        "data/val.jsonl": '{"input": "c", "target": "d"}\n',
        "data/test.jsonl": '{"input": "e", "target": "f"}\n',
        "data/unused.jsonl": "{}",
        "metrics.py": "def mine(): ...",
        "notes/deep/draft.txt": "later",
        "notes/.gitignore": "deep/\n",
        ".gitignore": "/data/\n*.log\n",
        ".rayignore": "big.bin\n",
        "big.bin": "x" * 2000,
        "run.log": "said",
        ".env": f"KEY={KEY}",
        ".git/config": "[core]",
        ".venv/lib/a.py": "",
        "runs/first/summary.json": "{}",
        "pkg/__pycache__/a.pyc": "",
        "pkg/a.py": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def _config(**models: Any) -> dict[str, Any]:
    return {
        "run": {"dir": "/storage/runs"},
        "models": {"task": {"model": "t"}, "optimizer": {"model": "o"}, **models},
        "tasks": [
            {
                "name": "triage",
                "data": {split: f"data/{split}.jsonl" for split in ("train", "val", "test")},
                "prompt": "Think.",
                "position": "question_begin",
                "answer": {"kind": "exact"},
            }
        ],
    }


def _packed(work: Path, config: RunConfig | None = None) -> Package:
    path = work / "config.yaml"
    return package(work, path, config or load_config(path))


def _refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    return str(caught.value)


def test_what_a_run_needs_is_shipped_and_nothing_else(work: Path) -> None:
    assert _packed(work).names == (
        ".gitignore", ".rayignore", "config.yaml", "data/test.jsonl", "data/train.jsonl", "data/val.jsonl",
        "metrics.py", "notes/.gitignore", "pkg/a.py",
    )  # fmt: skip


def test_the_program_s_own_folder_can_be_shipped() -> None:
    root = Path(__file__).resolve().parents[2]
    path = root / "configs/quickstart.yaml"
    names = package(root, path, load_config(path)).names
    assert {"cluster/cli/__main__.py", "configs/quickstart/language/val.jsonl", "k8s/base/run/rayjob.yaml"} <= set(
        names
    )
    assert not [name for name in names if name.startswith((".git/", ".venv"))]


def test_the_same_content_makes_the_same_package(work: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = _packed(work).write(tmp_path / "a").read_bytes()
    os.utime(work / "metrics.py", (1_000_000_000, 1_000_000_000))
    archive = _packed(work).write(tmp_path / "b")
    assert archive.read_bytes() == first
    with zipfile.ZipFile(archive) as shipped:
        assert shipped.read("data/val.jsonl") == (work / "data/val.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("server.pem", "x"),
        ("deploy/id_ed25519", "x"),
        ("cluster.kubeconfig", "x"),
        ("service-account-7.json", "{}"),
        ("a.txt", "-----BEGIN RSA " + "PRIVATE KEY-----\nMII"),
        ("b.py", 'key = "sk-proj-' + "a1B2" * 10 + '"'),
        ("c.yaml", "aws: AKIA" + "ABCD" * 4),
        ("d.json", f'"{KEY}"'),
    ],
)
def test_no_key_is_shipped(name: str, text: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = work / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    said = _refusal(lambda: _packed(work))
    assert name in said
    assert ".rayignore" in said
    assert text not in said
    (work / ".rayignore").write_text(f"big.bin\n{name}\n", encoding="utf-8")
    assert name not in _packed(work).names


def test_no_secret_that_is_known_here_is_shipped(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, token = tmp_path / "key-file", tmp_path / "ray-token"
    key.write_text("canary-from-a-file\n", encoding="utf-8")
    token.write_text("canary-ray-token-file", encoding="utf-8")
    secrets = {
        "GPO_SERVE_TOKEN": "canary-serve",
        "RAY_AUTH_TOKEN": "canary-ray",
        "MY_DB_PASSWORD": "canary-long-password",
        "GPO_REDIS_URL": "redis://:canary-redis@host:6379/0",
        "CACHE_URL": "redis://:canary%2Dcache@host:6379/0",
        "STUDY_URL": "postgresql://me:canary-study@host/db",
    }
    for name, value in {**secrets, "RAY_AUTH_TOKEN_PATH": str(token), "SHORT_TOKEN": "word"}.items():
        monkeypatch.setenv(name, value)
    raw = _config(task={"model": "t", "api_key_file": str(key)})
    raw["cache"] = {"kind": "redis", "url_env": "CACHE_URL"}
    raw["sweep"] = {"storage": {"kind": "url", "url_env": "STUDY_URL"}}
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    del raw["sweep"]
    config = validate(raw, base_dir=work)
    found = ["canary-from-a-file", "canary-ray-token-file", "canary-serve", "canary-ray", "canary-long-password"]
    found += ["canary-redis", "canary%2Dcache", "canary-cache", "canary-study"]
    (work / "empty").touch()
    (work / "words.txt").write_text("word, and redis://host:6379/0", encoding="utf-8")
    assert "words.txt" in package(work, path, config).names
    for secret in found:
        (work / "output.txt").write_bytes(b"x" * 1_500_000 + secret.encode() + b"x")
        said = _refusal(lambda: package(work, path, config))
        assert "'output.txt' looks like a key or holds one" in said, secret
        assert secret not in said


def test_a_key_file_is_not_shipped_either(work: Path) -> None:
    (work / "token").write_text(KEY, encoding="utf-8")
    raw = _config(task={"model": "t", "api_key_file": "token"})
    (work / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    said = _refusal(lambda: _packed(work))
    assert "models.task.api_key_file" in said
    assert "never shipped" in said


def test_too_much_is_refused_with_the_largest_files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_package, "MAX_BYTES", 2000)
    assert _packed(work).num_bytes < 2000
    (work / "large.txt").write_text("y" * 1900, encoding="utf-8")
    assert "large.txt" in _refusal(lambda: _packed(work))


def test_a_configuration_elsewhere_is_refused(work: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text((work / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert "outside" in _refusal(lambda: package(work, path, load_config(work / "config.yaml")))


def test_what_lies_elsewhere_is_named(work: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "val.jsonl"
    elsewhere.write_text("{}", encoding="utf-8")
    config = load_config(work / "config.yaml", [f"tasks.0.data.val={elsewhere}"])
    assert _packed(work, config).beyond == (elsewhere,)


def test_the_command_survives_a_shell() -> None:
    order = Order("run", "a b.yaml", ("tasks.0.prompt=It's $HOME",), "first", "s3://bucket/runs/first")
    assert order.entrypoint == (
        "python -m cluster.cli run 'a b.yaml' --set 'tasks.0.prompt=It'\"'\"'s $HOME' --run-id first "
        "--run-dir s3://bucket/runs/first --resume"
    )


def test_files_that_are_extended_are_shipped_whatever_git_ignores(work: Path) -> None:
    (work / "config.yaml").rename(work / "data" / "base.yaml")
    document = yaml.safe_load((work / "data/base.yaml").read_text(encoding="utf-8"))
    document["tasks"][0]["data"] = {split: f"{split}.jsonl" for split in ("train", "val", "test")}
    (work / "data/base.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    (work / "data/middle.yaml").write_text("extends: base.yaml", encoding="utf-8")
    (work / "config.yaml").write_text("extends: [data/middle.yaml]", encoding="utf-8")
    assert {"config.yaml", "data/middle.yaml", "data/base.yaml", "data/val.jsonl"} <= set(_packed(work).names)


def test_what_is_named_and_never_shipped_is_refused(work: Path) -> None:
    (work / "runs/data").mkdir()
    (work / "data/val.jsonl").rename(work / "runs/data/val.jsonl")
    said = _refusal(lambda: _packed(work, load_config(work / "config.yaml", ["tasks.0.data.val=runs/data/val.jsonl"])))
    assert said.startswith("tasks.0.data.val: 'runs/data/val.jsonl' is one of those that are never shipped")
    base = (work / "config.yaml").rename(work / "runs/base.yaml")
    raw = yaml.safe_load(base.read_text(encoding="utf-8"))
    raw["tasks"][0]["data"] = {split: f"../data/{split}.jsonl" for split in ("train", "test")} | {
        "val": "data/val.jsonl"
    }
    base.write_text(yaml.safe_dump(raw), encoding="utf-8")
    (work / "config.yaml").write_text("extends: runs/base.yaml", encoding="utf-8")
    assert _refusal(lambda: _packed(work)).startswith("extends: 'runs/base.yaml'")
    assert _refusal(lambda: package(work, base, load_config(base))).startswith("CONFIG: 'runs/base.yaml'")


@pytest.mark.parametrize(
    ("sections", "refused"),
    [
        ({"cache": {"path": "completions.sqlite"}}, "cache.path"),
        ({"cache": {"path": "/storage/completions.sqlite"}}, None),
        ({"sweep": {"storage": {"path": "study.journal"}}}, "sweep.storage.path"),
        ({"sweep": {"storage": {"path": "/storage/study.journal"}}}, None),
        ({"sweep": {"storage": "sqlite:///study.db"}}, "sweep.storage"),
        ({"sweep": {"storage": "sqlite:////storage/study.db"}}, None),
        ({}, None),
    ],
)
def test_what_is_written_must_outlive_the_job(work: Path, sections: dict[str, Any], refused: str | None) -> None:
    raw = {**_SWEEP["sweep"], **sections.get("sweep", {})}
    (work / "config.yaml").write_text(yaml.safe_dump({**_config(), **sections, "sweep": raw}), encoding="utf-8")
    sweep = load_sweep(work / "config.yaml", [])
    if refused is None:
        require_not_shipped(sweep.base, sweep.section, work)
    else:
        said = _refusal(lambda: require_not_shipped(sweep.base, sweep.section, work))
        assert said.startswith(f"{refused}:")


def test_a_sweep_is_checked_before_it_is_shipped(work: Path) -> None:
    said: list[str] = []
    path, options = work / "config.yaml", SubmitOptions(sweep=True, kubernetes=True, image="i:1")
    assert _refusal(lambda: submit(path, [], None, options, said.append)).startswith("sweep: is missing")
    wrong = {"sweep": {"space": {"optimizer.no_such_option": {"choices": [1]}}}}
    path.write_text(yaml.safe_dump(_config() | wrong), encoding="utf-8")
    assert "optimizer.no_such_option" in _refusal(lambda: submit(path, [], None, options, said.append))
    path.write_text(yaml.safe_dump(_config() | _SWEEP), encoding="utf-8")
    assert "--sweep" in _refusal(lambda: submit(path, [], None, SubmitOptions(), said.append))


@pytest.mark.parametrize(
    ("sections", "refused"),
    [
        ({"cache": {"path": "completions.sqlite"}}, "cache.path"),
        ({"cache": {"path": "/storage/completions.sqlite"}}, None),
        ({"models": {"task": {"model": "t", "api_key_file": "token"}}}, "models.task.api_key_file"),
        ({"models": {"task": {"model": "t", "api_key_file": "/secrets/token"}}}, None),
    ],
)
def test_a_ray_job_has_nothing_that_lies_beside_its_configuration(
    sections: dict[str, Any], refused: str | None, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = _config()
    raw["models"] |= sections.get("models", {})
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(raw | {"cache": sections.get("cache", {"kind": "none"})}), encoding="utf-8")
    (work / "token").write_text(KEY, encoding="utf-8")
    options = SubmitOptions(kubernetes=True, image="i:1", run_id="first")
    if refused is None:
        assert submit(path, [], None, options, print) == 0
    else:
        assert _refusal(lambda: submit(path, [], None, options, print)).startswith(f"{refused}:")
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
def test_no_key_stands_in_a_config_map(option: str, text: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY if text.startswith("sk-") else text)
    monkeypatch.setenv("STUDY_URL", "redis://:study-password@host")
    raw = _config() | {"sweep": {**_SWEEP["sweep"], "storage": {"kind": "url", "url_env": "STUDY_URL"}}}
    options = SubmitOptions(sweep=True, kubernetes=True, image="i:1")
    if option == "data/train.jsonl":
        (work / option).write_text(f'{{"input": "a", "target": "{text}"}}\n', encoding="utf-8")
    elif option.startswith("--"):
        changed: dict[str, Any] = {option[2:].replace("-", "_"): f"/storage/{text}/x"}
        options = replace(options, **changed)
    elif option.endswith("base_url"):
        raw["models"]["optimizer"]["base_url"] = f"http://{text}/v1"
    else:
        raw["models"]["task"]["sampling"] = {"extra": {"metadata": {"token": text}}}
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    said = _refusal(lambda: submit(path, [], None, options, print))
    assert "keys are never shipped" in said
    assert text not in said
    assert (Path(option).name if "/" in option else option) in said


def test_results_must_outlive_the_job() -> None:
    require_reachable("run.dir", "/storage/runs")
    require_reachable("run.dir", "s3://bucket/runs")
    assert "lost with the job" in _refusal(lambda: require_reachable("run.dir", "runs"))


def test_the_address_is_that_of_a_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert _resolved("http://head:8265/") == "http://head:8265"
    assert "10.0.0.1:6379" in _refusal(lambda: _resolved(None))
    for address in ("http://me:canary-pw@head:8265", "https://canary-pw@head", "http://me:canary-pw@head:99999999"):
        said = _refusal(lambda address=address: _resolved(address))
        assert "holds a user name or password" in said
        assert "canary-pw" not in said
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://ray.example.com")
    assert _resolved(None) == "https://ray.example.com"


def test_a_name_that_kubernetes_takes_stays() -> None:
    for run_id in ("triage-20261121-173238-ab12", "first", "n"):
        assert object_name(run_id) == run_id


def test_no_two_runs_have_one_name() -> None:
    long = ["x" * 100 + "-a-" + "y" * 100, "x" * 100 + "-b-" + "y" * 100, "z" * 46 + "-z"]
    ids = ["run-1", "Run-1", "run_1", "Run_1", "run.1", "run-1-", "7-tasks", "gpo-7-tasks", "_", "__", "gpo", *long]
    names = [object_name(run_id) for run_id in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 47


def test_who_goes_on_with_a_run_gives_it_the_new_configuration(work: Path) -> None:
    def made(steps: int) -> Manifest:
        config = load_config(work / "config.yaml", [f"optimizer.steps={steps}"])
        order = Order("run", "", (), "first", "/storage/runs/first")
        return manifest(work / "config.yaml", config, None, order, image="i:1", namespace="gpo")

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


_KUBECTL = """#!/bin/sh
{ echo "$@"; cat; } >> "$SAID"
grep -q "^kind: $REFUSED" "$SAID" && exit 1
exit 0
"""


@pytest.mark.parametrize(
    ("refused", "asked"),
    [("nothing", ["ConfigMap", "RayJob"]), ("ConfigMap", ["ConfigMap"]), ("RayJob", ["ConfigMap", "RayJob"])],
)
def test_the_ray_job_is_made_once_its_configuration_is_there(
    refused: str, asked: list[str], work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, said = tmp_path / "bin" / "kubectl", tmp_path / "said"
    program.parent.mkdir()
    program.write_text(_KUBECTL, encoding="utf-8")
    program.chmod(0o755)
    for name, value in {"PATH": f"{program.parent}:{os.environ['PATH']}", "SAID": said, "REFUSED": refused}.items():
        monkeypatch.setenv(name, str(value))
    options = SubmitOptions(kubernetes=True, apply=True, image="i:1", run_id="first")
    if refused == "nothing":
        assert submit(work / "config.yaml", [], None, options, print) == 0
    else:
        with pytest.raises(ClusterError, match=refused):
            submit(work / "config.yaml", [], None, options, print)
    text = said.read_text(encoding="utf-8")
    assert re.findall("^kind: (.*)$", text, re.MULTILINE) == asked
    assert [line for line in text.splitlines() if line.endswith(" -f -")] == [
        # On its own side, kubectl could not apply a ConfigMap of more than a quarter of what one holds.
        "apply --server-side --force-conflicts -f -",
        "create -f -",
    ][: len(asked)]


@pytest.mark.parametrize("text", ["n", "y", "N", "no", "1e3", "0o17", "0x1f", "1_000", "12:30", "-.5", "~", "true"])
def test_what_is_a_text_is_read_as_one(text: str) -> None:
    written = as_yaml({text: [text]}).strip()
    assert re.fullmatch(r"""(["']).+\1:\n- (["']).+\2""", written), written
    assert yaml.safe_load(written) == {text: [text]}


def test_a_ray_job_carries_the_configuration_and_its_data(work: Path) -> None:
    config = load_config(work / "config.yaml", ["optimizer.steps=2"])
    order = Order("run", "", ("optimizer.steps=2",), "First", "/storage/runs/First")
    text = manifest(work / "config.yaml", config, None, order, image="r.example/gpo:1", namespace="team").text
    settings, job = yaml.safe_load_all(text)
    assert {item["metadata"]["namespace"] for item in (settings, job)} == {"team"}
    inner = yaml.safe_load(settings["data"]["config.yaml"])
    assert inner["optimizer"]["steps"] == 2
    assert "base_url" not in inner["models"]["task"], "the cluster's own OPENAI_BASE_URL decides"
    place = inner["tasks"][0]["data"]["val"]
    assert settings["data"][Path(place).name] == (work / "data/val.jsonl").read_text(encoding="utf-8")
    assert job["spec"]["entrypoint"] == (
        "python -m cluster.cli run /etc/gpo/job/config.yaml --run-id First --run-dir /storage/runs/First --resume"
    )
    cluster = job["spec"]["rayClusterSpec"]
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        pod = template["spec"]
        assert {"name": "job", "configMap": {"name": settings["metadata"]["name"]}} in pod["volumes"]
        assert pod["containers"][0]["image"] == "r.example/gpo:1"
        assert Path(place).parent == Path(pod["containers"][0]["volumeMounts"][-1]["mountPath"])


def test_a_ray_job_carries_a_sweep_with_its_held_out_tasks(work: Path) -> None:
    held_out = {**_config()["tasks"][0], "name": "other"}
    held_out["data"] = {**held_out["data"], "val": "data/unused.jsonl"}
    (work / "data/unused.jsonl").write_text('{"input": "g", "target": "h"}\n', encoding="utf-8")
    raw = {"sweep": {**_SWEEP["sweep"], "holdout": {"tasks": [held_out]}}}
    (work / "config.yaml").write_text(yaml.safe_dump(_config() | raw), encoding="utf-8")
    sweep = load_sweep(work / "config.yaml", [])
    order = Order("sweep", "", (), "First", "/storage/runs/First")
    text = manifest(work / "config.yaml", sweep.base, sweep, order, image="i:1", namespace="gpo").text
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
        "python -m cluster.cli sweep /etc/gpo/job/config.yaml --run-dir /storage/runs/First --resume"
    )
    assert job["spec"]["activeDeadlineSeconds"] == 604_800, "a sweep's, not a run's"


def test_what_does_not_fit_a_config_map_is_refused(work: Path) -> None:
    order = Order("run", "", (), "first", "/storage/runs/first")
    (work / "data/val.jsonl").write_text("x" * 1_000_000, encoding="utf-8")
    config = load_config(work / "config.yaml")
    said = _refusal(lambda: manifest(work / "config.yaml", config, None, order, image="i:1", namespace="gpo"))
    assert "1.0 MB" in said
    said = _refusal(lambda: manifest(work / "config.yaml", config, None, order, image=None, namespace="gpo"))
    assert "--image" in said
    quickstart = Path(__file__).resolve().parents[2] / "configs/quickstart.yaml"
    said = _refusal(lambda: manifest(quickstart, load_config(quickstart), None, order, image="i:1", namespace="gpo"))
    assert "serves one machine" in said
