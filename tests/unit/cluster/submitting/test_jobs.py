from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster.cli.submit import submit
from cluster.config import RunConfig, load_config
from cluster.config.loading import validate
from cluster.config.sweep import SweepSection
from cluster.submitting import package as packaging
from cluster.submitting.jobs import JobSpec, _resolved, asked_until, require_reachable
from cluster.submitting.package import Package, package, require_outputs_outside
from cluster.submitting.submission import Submission
from cluster.sweep.config import load_sweep
from gpo.errors import ClusterError
from tests.configs import refused, submitted_config
from tests.mounts import mount
from tests.paths import ROOT

KEY = "correct-horse-battery"
_SWEEP = {"sweep": {"space": {"optimizer.candidates": {"low": 2, "high": 4}}}}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder as people have them."""
    folder = tmp_path / "work"
    for name, text in {
        "config.yaml": yaml.safe_dump(submitted_config()),
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


def _packed(work: Path, config: RunConfig | None = None) -> Package:
    path = work / "config.yaml"
    return package(work, path, config or load_config(path))


def _refusal(action: Callable[[], object]) -> str:
    return str(refused(action))


def test_only_what_a_run_needs_is_shipped(work: Path) -> None:
    assert _packed(work).names == (
        ".gitignore", ".rayignore", "config.yaml", "data/test.jsonl", "data/train.jsonl", "data/val.jsonl",
        "metrics.py", "notes/.gitignore", "pkg/a.py",
    )  # fmt: skip


def test_the_programs_own_folder_can_be_shipped() -> None:
    root = ROOT
    path = root / "configs/quickstart.yaml"
    names = package(root, path, load_config(path)).names
    assert {"cluster/cli/__main__.py", "configs/quickstart/language/val.jsonl", "k8s/base/run/rayjob.yaml"} <= set(
        names
    )
    assert not [name for name in names if name.startswith((".git/", ".venv"))]


def test_a_mounted_config_map_makes_the_same_package_in_every_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = tmp_path / "configs", list[tuple[str, bytes]]()
    data = {split: f"{split}.jsonl" for split in ("train", "val", "test")}
    texts = {name: f'{{"input": "{split}", "target": "b"}}\n' for split, name in data.items()}
    raw = submitted_config()
    raw["tasks"][0]["data"], raw["run"] = data, {"dir": "/storage/runs"}
    for stamp in ("2026_01_01", "2026_01_02"):
        mount(folder, {"run.yaml": yaml.safe_dump(raw), **texts}, stamp)
        monkeypatch.chdir(folder)
        submission = Submission.checked(Path("run.yaml"), run_id="first", options=["--budget-ok"], say=lambda _: None)
        shipped = submission.package(lambda _: None)
        assert shipped.names == ("run.yaml", "test.jsonl", "train.jsonl", "val.jsonl")
        made.append((submission.spec.entrypoint, shipped.write(tmp_path).read_bytes()))
    assert made[0] == made[1]
    assert made[0][0].startswith("python -m cluster.cli run run.yaml ")
    assert made[0][0].endswith(" --budget-ok --resume")


def test_a_folder_may_be_named_through_a_link(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(work)
    path = tmp_path / "link/config.yaml"
    assert package(work, path, load_config(path)).outside == ()
    assert "data/train.jsonl" in package(work, path, load_config(path)).names
    raw = submitted_config()
    raw["models"]["task"] = {"model": "m", "api_key_file": "token"}
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert "models.task.api_key_file" in _refusal(lambda: package(work, path, load_config(path)))


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


def test_no_known_secret_is_shipped(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    raw = submitted_config(task={"model": "t", "api_key_file": str(key)})
    raw["cache"] = {"kind": "redis", "url_env": "CACHE_URL"}
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    config = validate(raw, base_dir=work)
    space = _SWEEP["sweep"]["space"]
    sweep = SweepSection.model_validate({"space": space, "storage": {"kind": "url", "url_env": "STUDY_URL"}})
    found = ["canary-from-a-file", "canary-ray-token-file", "canary-serve", "canary-ray", "canary-long-password"]
    found += ["canary-redis", "canary%2Dcache", "canary-cache", "canary-study"]
    (work / "empty").touch()
    (work / "words.txt").write_text("word, and redis://host:6379/0", encoding="utf-8")
    assert "words.txt" in package(work, path, config, sweep).names
    for secret in found:
        (work / "output.txt").write_bytes(b"x" * 1_500_000 + secret.encode() + b"x")
        said = _refusal(lambda: package(work, path, config, sweep))
        assert "'output.txt' looks like a key or holds one" in said, secret
        assert secret not in said


def test_a_key_file_is_not_shipped_either(work: Path) -> None:
    (work / "token").write_text(KEY, encoding="utf-8")
    raw = submitted_config(task={"model": "t", "api_key_file": "token"})
    (work / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    said = _refusal(lambda: _packed(work))
    assert "models.task.api_key_file" in said
    assert "never shipped" in said


def test_too_much_is_refused_with_the_largest_files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "MAX_BYTES", 2000)
    assert _packed(work).num_bytes < 2000
    (work / "large.txt").write_text("y" * 1900, encoding="utf-8")
    assert "large.txt" in _refusal(lambda: _packed(work))


def test_a_configuration_outside_the_working_directory_is_refused(work: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text((work / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert "outside" in _refusal(lambda: package(work, path, load_config(work / "config.yaml")))


def test_files_outside_the_folder_are_named(work: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "val.jsonl"
    elsewhere.write_text("{}", encoding="utf-8")
    config = load_config(work / "config.yaml", [f"tasks.0.data.val={elsewhere}"])
    assert _packed(work, config).outside == (elsewhere,)


def test_the_entrypoint_is_quoted_for_a_shell() -> None:
    spec = JobSpec("run", "a b.yaml", ("tasks.0.prompt=It's $HOME",), "first", "s3://bucket/runs/first")
    assert spec.entrypoint == (
        "python -m cluster.cli run 'a b.yaml' --set 'tasks.0.prompt=It'\"'\"'s $HOME' --run-id first "
        "--run-dir s3://bucket/runs/first --resume"
    )


def test_extended_files_are_shipped_even_if_git_ignores_them(work: Path) -> None:
    (work / "config.yaml").rename(work / "data" / "base.yaml")
    document = yaml.safe_load((work / "data/base.yaml").read_text(encoding="utf-8"))
    document["tasks"][0]["data"] = {split: f"{split}.jsonl" for split in ("train", "val", "test")}
    (work / "data/base.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    (work / "data/middle.yaml").write_text("extends: base.yaml", encoding="utf-8")
    (work / "config.yaml").write_text("extends: [data/middle.yaml]", encoding="utf-8")
    assert {"config.yaml", "data/middle.yaml", "data/base.yaml", "data/val.jsonl"} <= set(_packed(work).names)


def test_prompts_are_shipped_but_not_from_the_folder_of_runs(work: Path) -> None:
    (work / "data/prompts.txt").write_text("Think.\nAnswer.\n", encoding="utf-8")
    (work / "earlier").mkdir()
    (work / "earlier/summary.json").write_text("{}", encoding="utf-8")
    (work / ".gitignore").write_text("/data/\n/earlier/\n", encoding="utf-8")

    def names(prompt: str) -> tuple[str, ...]:
        return _packed(work, load_config(work / "config.yaml", [f"tasks.0.prompt={prompt}"])).names

    assert "data/prompts.txt" in names("{file: data/prompts.txt}")
    assert "earlier/summary.json" in names("{run: earlier}")
    assert "earlier/summary.json" not in names("{run: 's3://bucket/runs/first'}")
    said = _refusal(lambda: names("{run: runs/first}"))
    assert said.startswith("tasks.0.prompt.run: 'runs/first' is never shipped")


def test_the_module_of_a_program_is_shipped_even_if_git_ignores_it(work: Path, tmp_path: Path) -> None:
    module = "def answer(prompts, example, client): ..."
    for folder in (work / "code", tmp_path / "elsewhere"):
        folder.mkdir()
        (folder / "qa.py").write_text(module, encoding="utf-8")
    (work / ".gitignore").write_text("/data/\n/code/\n", encoding="utf-8")
    raw = yaml.safe_load((work / "config.yaml").read_text(encoding="utf-8"))
    del raw["tasks"][0]["position"]

    def packed(folder: str) -> Package:
        raw["tasks"][0]["program"] = {"function": "qa:answer", "folder": folder}
        (work / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
        return _packed(work)

    assert "code/qa.py" in packed("code").names
    assert packed("../elsewhere").outside == ((tmp_path / "elsewhere"),)


def test_naming_a_file_that_is_never_shipped_is_refused(work: Path) -> None:
    (work / "runs/data").mkdir()
    (work / "data/val.jsonl").rename(work / "runs/data/val.jsonl")
    said = _refusal(lambda: _packed(work, load_config(work / "config.yaml", ["tasks.0.data.val=runs/data/val.jsonl"])))
    assert said.startswith("tasks.0.data.val: 'runs/data/val.jsonl' is never shipped")
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
def test_output_files_must_outlive_the_job(work: Path, sections: dict[str, Any], refused: str | None) -> None:
    raw = {**_SWEEP["sweep"], **sections.get("sweep", {})}
    (work / "config.yaml").write_text(
        yaml.safe_dump({**submitted_config(), **sections, "sweep": raw}), encoding="utf-8"
    )
    sweep = load_sweep(work / "config.yaml", [])
    if refused is None:
        require_outputs_outside(sweep.base, sweep.section, work)
    else:
        said = _refusal(lambda: require_outputs_outside(sweep.base, sweep.section, work))
        assert said.startswith(f"{refused}:")


def test_a_sweep_is_checked_before_it_is_shipped(work: Path) -> None:
    path = work / "config.yaml"

    def refused() -> str:
        return _refusal(lambda: submit(path, sweep=True, kubernetes=True, image="i:1"))

    assert refused().startswith("sweep: is missing")
    wrong = {"sweep": {"space": {"optimizer.no_such_option": {"choices": [1]}}}}
    path.write_text(yaml.safe_dump(submitted_config() | wrong), encoding="utf-8")
    assert "optimizer.no_such_option" in refused()
    path.write_text(yaml.safe_dump(submitted_config() | _SWEEP), encoding="utf-8")
    assert "--sweep" in _refusal(lambda: submit(path))


def test_results_must_outlive_the_job() -> None:
    require_reachable("run.dir", "/storage/runs")
    require_reachable("run.dir", "s3://bucket/runs")
    assert "lost with the job" in _refusal(lambda: require_reachable("run.dir", "runs"))


def test_the_address_must_be_a_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert _resolved("http://head:8265/") == "http://head:8265"
    assert "10.0.0.1:6379" in _refusal(lambda: _resolved(None))
    for address in ("http://me:canary-pw@head:8265", "https://canary-pw@head", "http://me:canary-pw@head:99999999"):
        said = _refusal(lambda address=address: _resolved(address))
        assert "holds a user name or password" in said
        assert "canary-pw" not in said
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://ray.example.com")
    assert _resolved(None) == "https://ray.example.com"


@pytest.mark.parametrize(
    ("message", "is_said"),
    [
        ("gpo: error: models.task.api_key_env: environment variable KEY is not set; set it", True),
        ("gpo: error: tasks[0].data.train: '/data/train.jsonl' does not exist; name another file", False),
    ],
)
def test_keys_are_mentioned_only_if_a_model_was_refused(
    message: str, is_said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = SimpleNamespace(status=SimpleNamespace(value="FAILED"), driver_exit_code=2, message=message)
    jobs = SimpleNamespace(address="http://head:8265", newest=lambda run: run, wait=lambda _: job)
    monkeypatch.setattr("cluster.submitting.jobs.Jobs", lambda _: jobs)
    assert submit(status="first", wait=True) == 2
    said = capsys.readouterr().err
    assert message in said
    assert ("never shipped" in said) == is_said


def test_an_unreachable_cluster_is_asked_at_each_poll_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, asked_at = 0.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    def ask() -> None:
        asked_at.append(now_s)
        assert len(asked_at) < 100, "it is asked without a pause"
        raise ClusterError("it cannot be reached")

    monkeypatch.setattr("cluster.submitting.jobs.time", SimpleNamespace(monotonic=lambda: now_s, sleep=sleep))
    with pytest.raises(ClusterError, match="it cannot be reached"):
        asked_until(ask, lambda _: True, 0.0, 2.0)
    assert asked_at == [2.0 * number for number in range(31)]
