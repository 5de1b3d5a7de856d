"""What a configuration from a stranger may name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.config import RunConfig
from cluster.config.models import EmbeddedChatConfig, EndpointConfig
from cluster.config.section import OptionInfo, declared, options, sections_in
from cluster.serving.folders import run_folders
from cluster.serving.posted import Terms, read_posted
from cluster.session.models import build_tasks, embedded_spec
from gpo.data.task import Split
from gpo.errors import ConfigError
from tests.configs import merged, option_texts, refused
from tests.unit.cluster.serving.requests import posted, posted_task, rows, service_config

OWN, SECOND = "http://127.0.0.1:9/v1", "http://127.0.0.1:9/second/v1"
KEPT = {
    "api_key_env": "SERVICE_KEY",
    "headers": {"X-Team": "a", "X-Token": {"env": "PROXY_TOKEN"}},
    "query": {"version": "1"},
    "max_concurrency": 7,
    "requests_per_min": 60,
    "price": {"prompt": 1.0, "completion": 2.0},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.chdir(tmp_path)  # a module here must not be found


@pytest.fixture
def service(tmp_path: Path) -> RunConfig:
    second = {"base_url": SECOND, "model": "judge-model", "api_key_env": "SECOND_KEY"}
    return service_config(OWN, tmp_path, models={"task": KEPT, "optimizer": KEPT, "judge": second})


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The allowed folder, with links to files outside; what is outside is beside it."""
    (tmp_path / "outside.py").write_text("def score(answer, example): return 1.0\n")
    write_rows(tmp_path / "outside.jsonl")
    folder = tmp_path / "shared"
    (folder / "more").mkdir(parents=True)
    (folder / "own.py").write_text("def score(answer, example): return 1.0\ndef build(): return None\n")
    (folder / "more" / "deep.py").write_text("def score(answer, example): return 1.0\n")
    (folder / "linked.py").symlink_to(tmp_path / "outside.py")
    (folder / "linked.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (folder / "gpo").mkdir()
    (folder / "gpo" / "text.py").write_text("")
    (folder / "meta.txt").write_text("{{ prompt }} <START> <END> {{ rules | join(' ') }}")
    for split in Split:
        write_rows(folder / f"{split}.jsonl", str(split))
    return folder


def write_rows(path: Path, beginning: str = "ticket") -> None:
    path.write_text("\n".join(map(json.dumps, rows(8, beginning))))


def read(body: dict[str, Any], service: RunConfig, tmp_path: Path, allow_dir: Path | None = None) -> RunConfig:
    return read_posted(body, Terms(service, allow_dir, frozenset()), tmp_path / "runs" / "run-1").config


def refusal(body: dict[str, Any], service: RunConfig, tmp_path: Path, allow_dir: Path | None = None) -> ConfigError:
    error = refused(lambda: read(body, service, tmp_path, allow_dir))
    assert "canary" not in str(error)
    assert OWN not in str(error)
    return error


def files(**paths: str) -> dict[str, Any]:
    return posted_task(data={"train": "train.jsonl", "val": "val.jsonl", "test": "test.jsonl", **paths})


def test_a_request_without_models_has_those_of_the_service(service: RunConfig, tmp_path: Path) -> None:
    config = read(posted(), service, tmp_path)
    assert config.models == service.models
    assert (config.cache, config.cluster, config.tracking) == (service.cache, service.cluster, service.tracking)
    assert config.run.dir == str(tmp_path / "runs")
    assert config.optimizer.candidates == 2


def test_rows_become_files_below_the_folder_of_the_run(service: RunConfig, tmp_path: Path) -> None:
    body = posted()
    body["tasks"].append({**body["tasks"][0], "name": "other", "data": {"rows": rows(20), "split": {"train": 4}}})
    run = read_posted(body, Terms(service, None, frozenset()), tmp_path / "runs" / "run-1")
    assert {name: len(content) for name, content in run.rows.items()} == {
        "0-train": 8, "0-val": 8, "0-test": 8, "1-rows": 20
    }  # fmt: skip
    assert str(run.config.tasks[1].data.file) == str(tmp_path / "runs" / "run-1" / "data" / "1-rows.jsonl")  # type: ignore[union-attr]
    assert not (tmp_path / "runs").exists()


OUTSIDE = ["outside.jsonl", "../outside.jsonl", "/etc/passwd", "~/x.jsonl", "linked.jsonl", "more/../../outside.jsonl"]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("with_folder", [False, True])
def test_files_outside_the_allowed_folder_are_refused(
    path: str, with_folder: bool, service: RunConfig, shared: Path, tmp_path: Path
) -> None:
    path = str(tmp_path / path) if path == "outside.jsonl" else path
    allowed = shared if with_folder else None
    inline = {"train": rows(4, "a"), "val": rows(4, "b"), "test": rows(4, "c")}
    bodies = {
        "tasks[0].data.val": posted_task(data={**inline, "val": path}),
        "tasks[0].data.file": {**posted(), "tasks": [{**posted()["tasks"][0], "data": {"file": path}}]},
        "tasks[0].data.few_shot": posted_task(data={**inline, "few_shot": path}, shots=1),
        "tasks[0].data.root": {**posted(), "tasks": [{"data": {"benchmark": "bbh", "name": "navigate", "root": path}}]},
        "tasks[0].prompt.file": posted_task(prompt={"file": path}),
        "tasks[0].prompt.run": posted_task(prompt={"run": path}),
        "optimizer.meta_prompt.template": posted(optimizer={"meta_prompt": {"template": path}}),
    }
    for field, body in bodies.items():
        error = refusal(body, service, tmp_path, allowed)
        assert (error.field, "the service" in error.problem) == (field, True), error


def test_files_in_the_allowed_folder_are_read(service: RunConfig, shared: Path, tmp_path: Path) -> None:
    body = merged(files(), {"optimizer": {"meta_prompt": {"template": "meta.txt"}}})
    config = read(body, service, tmp_path, shared)
    (task,) = build_tasks(config)
    assert len(task.examples[Split.VAL]) == 8
    assert config.optimizer.meta_prompt.text == (shared / "meta.txt").read_text()


def own_functions(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "tasks[0].answer.metric", posted_task(answer={"kind": "custom", "metric": name})
    yield "tasks[0].answer.parser", posted_task(answer={"kind": "label", "parser": name})
    yield (
        "models.task.function",
        posted(models={"task": {"kind": "function", "function": name}, "optimizer": {"model": "o"}}),
    )
    program = posted_task(program={"function": name}, prompts={"ask": "Classify the ticket."})
    program["tasks"][0] = {
        key: value for key, value in program["tasks"][0].items() if key not in ("position", "prompt")
    }
    yield "tasks[0].program.function", program
    for section in ("schedule", "refinement", "acceptance"):
        yield f"optimizer.{section}.kind", posted(optimizer={section: {"kind": name}})
    yield "optimizer.direction.trajectory.kind", posted(optimizer={"direction": {"trajectory": {"kind": name}}})
    yield "evaluation.scoring.kind", posted(evaluation={"scoring": {"kind": name}})


@pytest.mark.parametrize(
    "name", ["os:system", "outside:score", "linked:score", "deep:score", "gpo.text:one_line", "nothing:f"]
)
@pytest.mark.parametrize("with_folder", [False, True])
def test_functions_outside_the_allowed_folder_are_refused(
    name: str, with_folder: bool, service: RunConfig, shared: Path, tmp_path: Path
) -> None:
    for field, body in own_functions(name):
        error = refusal(body, service, tmp_path, shared if with_folder else None)
        assert (error.field, "the service" in error.problem) == (field, True), error


def test_functions_in_the_allowed_folder_are_found_there_alone(
    service: RunConfig, shared: Path, tmp_path: Path
) -> None:
    for _, body in own_functions("own:score"):
        config = read(body, service, tmp_path, shared)
        assert {value for path, _, value in options(config) if path.endswith(".folder") and value} == {shared}
    # In another folder, the module would not be found, and then be searched in the working directory.
    for folder in ("more", str(tmp_path), ".."):
        body = posted_task(answer={"kind": "custom", "metric": "own:score", "folder": folder})
        assert refusal(body, service, tmp_path, shared).field in ("tasks.0.answer.folder", "tasks[0].answer.folder")


def test_every_function_and_path_among_the_options_is_checked() -> None:
    """An option of a new name that is a path or a function has a type that checks it."""
    paths, functions = set[str](), set[str]()
    texts = option_texts(RunConfig)
    for (path, field), (_, description) in zip(declared(RunConfig), texts, strict=True):
        text = f"{field.annotation} {field.metadata}"
        if "Path" in text:
            paths.add(path)
            assert "absolute" in text or "_folder" in text, path
        if "module:function" in description and not sections_in(field.annotation):
            functions.add(path)
            assert "function _function" in text or "function _parser" in text, path
    assert {"tasks.data.file", "tasks.prompt.run", "optimizer.meta_prompt.template"} <= paths
    assert {"tasks.answer.metric", "models.task.function", "evaluation.scoring.kind"} <= functions


MODEL: dict[str, Any] = {"model": "task-model"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("base_url", "http://evil.test/v1"),
        ("base_url", "http://169.254.169.254/latest"),
        ("base_url", f"{OWN}/../x"),
        ("base_url", "https://api.openai.com/v1"),
        ("api_key_env", "OPENAI_API_KEY"),
        ("api_key_env", "GPO_SERVE_TOKEN"),
        ("api_key_env", "SECOND_KEY"),  # the key of another address
        ("api_key_file", "/root/.netrc"),
        ("api_key_command", ["id"]),
        ("api_key_header", "X-Echo"),
        ("headers", {"X-Token": {"env": "AWS_SECRET_ACCESS_KEY"}}),
        ("headers", {"X-Team": "b"}),
        ("query", {"version": "2"}),
        ("max_concurrency", 1),
        ("requests_per_min", None),
        ("timeout_s", 1e9),
        ("max_attempts", 10**9),
        ("price", {"prompt": 0}),
    ],
)
def test_models_are_reached_as_the_service_reaches_them(
    option: str, value: Any, service: RunConfig, tmp_path: Path
) -> None:
    for role in ("task", "optimizer", "judge", "embedding"):
        models = {"task": MODEL, "optimizer": MODEL, role: {**MODEL, option: value}}
        error = refusal(posted(models=models), service, tmp_path)
        assert error.field == f"models.{role}.{option}"


def test_a_model_of_the_service_keeps_its_key_limits_and_price(service: RunConfig, tmp_path: Path) -> None:
    models = {
        "task": {"model": "judge-model", "base_url": SECOND, "sampling": {"max_tokens": 5}},
        "optimizer": {"model": "another", "base_url": f"{OWN}/", "price": {"prompt": 3}, "api_key_env": "SERVICE_KEY"},
    }
    config = read(posted(models=models), service, tmp_path)
    task, optimizer = config.models.task, config.models.optimizer
    assert isinstance(task, EndpointConfig)
    assert isinstance(optimizer, EndpointConfig)
    assert (task.api_key_env, task.base_url, task.max_concurrency) == ("SECOND_KEY", SECOND, 16)
    assert task.sampling.max_tokens == 5  # type: ignore[attr-defined]
    assert (optimizer.api_key_env, optimizer.base_url, optimizer.max_concurrency) == ("SERVICE_KEY", OWN, 7)
    assert (optimizer.price.prompt, optimizer.headers) == (3, service.models.optimizer.headers)  # type: ignore[union-attr]


def test_keys_of_the_environment_go_to_no_other_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults of an endpoint are not those of the environment."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.test/v1")
    service = service_config(OWN, tmp_path, models={"task": {"api_key_env": "SERVICE_KEY"}})
    config = read(posted(models={"task": MODEL, "optimizer": MODEL}), service, tmp_path)
    for _, info, value in options(config.models):
        assert info.sensitive is None or value in (None, OWN, "SERVICE_KEY", {}, {"X-Team": "a"})


def test_a_budget_in_dollars_needs_prices(tmp_path: Path) -> None:
    service = service_config(OWN, tmp_path, models={"task": KEPT, "optimizer": KEPT}, budget={"usd": 5})
    models = {"task": MODEL, "optimizer": {"model": "another", "price": {"prompt": 1e-9}}}
    assert refusal(posted(models=models), service, tmp_path).field == "models.optimizer.model"


@pytest.mark.parametrize(
    ("given", "bounds"), [({}, (100, None)), ({"calls": 50, "tokens": 9}, (50, 9)), ({"calls": 101}, None)]
)
def test_the_budget_of_the_service_bounds_each_run(
    given: dict[str, Any], bounds: tuple[int, int] | None, tmp_path: Path
) -> None:
    service = service_config(OWN, tmp_path, budget={"calls": 100})
    if bounds is None:
        assert refusal(posted(budget=given), service, tmp_path).field == "budget.calls"
    else:
        budget = read(posted(budget=given), service, tmp_path).budget
        assert (budget.calls, budget.tokens) == bounds


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("run.dir", {"run": {"dir": "/elsewhere"}}),
        ("cache", {"cache": {"path": "/etc/cron.d/x"}}),
        ("cache", {"cache": {"kind": "redis", "url_env": "OPENAI_API_KEY"}}),
        ("cluster", {"cluster": {"actor_cpus": 99}}),
        ("record", {"record": {"max_bytes": 10**18}}),
        ("metrics", {"metrics": {"port": 1}}),
        ("tracing", {"tracing": {"otlp": "http://evil.test"}}),
        ("tracking", {"tracking": {"mlflow": {"uri": "sqlite:////etc/x"}}}),
        ("tasks[0].data.huggingface", {"tasks": [{"name": "t", "data": {"huggingface": "a/b", "train": "t"}}]}),
        ("tasks[0].prompt.run", posted_task(prompt={"run": "s3://bucket/run"})),
        ("tasks[0].data.rows", {"tasks": [{"name": "t", "data": {"rows": rows(4), "file": "x.csv"}}]}),
        ("tasks[0].data.rows", {"tasks": [{"name": "t", "data": {"rows": []}}]}),
        ("tasks[0].data.rows", {"tasks": [{"name": "t", "data": {"rows": [1]}}]}),
        ("run.seeds", {"run": {"seeds": list(range(101))}}),
        ("models", {"models": {"task": {"kind": "embedded"}, "optimizer": MODEL}}),
        ("models.optimizer", {"models": {"task": MODEL}}),
        ("models.task.kind", {"models": {"task": {"kind": "shell"}, "optimizer": MODEL}}),
        ("models", {"models": []}),
        ("extends", {"extends": "/etc/passwd"}),
    ],
)
def test_what_a_request_may_not_set_is_refused(
    field: str, changes: dict[str, Any], service: RunConfig, shared: Path, tmp_path: Path
) -> None:
    assert refusal({**posted(), **changes}, service, tmp_path, shared).field == field


def test_an_embedded_model_must_be_one_that_the_service_runs(tmp_path: Path) -> None:
    running = embedded_spec(EmbeddedChatConfig(kind="embedded", parallel=2))
    terms = Terms(service_config(OWN, tmp_path), None, frozenset({running}))
    body = posted(models={"task": {"kind": "embedded", "parallel": 2}, "optimizer": MODEL})
    assert read_posted(body, terms, tmp_path / "run").config.models.task.kind == "embedded"
    body["models"]["task"]["parallel"] = 3
    with pytest.raises(ConfigError, match="not one that the service runs"):
        read_posted(body, terms, tmp_path / "run")


def test_every_option_of_how_an_endpoint_is_reached_is_the_services() -> None:
    """Also one that is added later: it may change on resume, and so is no part of what is searched for."""
    free = {"base_url", "price"}  # chosen among the service's own; checked by itself
    for name, field in EndpointConfig.model_fields.items():
        info = OptionInfo.of(field)
        assert name in free or info.may_change == (info.posted is not None), name


def test_the_folder_of_runs_is_on_this_machine_and_apart_from_the_allowed_one(tmp_path: Path) -> None:
    config = service_config(OWN, tmp_path, run={"dir": "s3://bucket/runs"})
    assert run_folders(config, None, None, 0) is None
    for runs, allowed, field in (
        (None, None, "--runs-dir"),
        (tmp_path / "runs", tmp_path / "none", "--allow-dir"),
        (tmp_path / "runs", tmp_path, "--allow-dir"),
    ):
        with pytest.raises(ConfigError) as caught:
            run_folders(config, runs, allowed, 1)
        assert caught.value.field == field
