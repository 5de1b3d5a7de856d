from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cluster.config import load_config
from cluster.config.loading import dump, validate
from cluster.config.models import OPENAI_URL, ChatEndpointConfig, EmbeddedEmbeddingConfig
from cluster.config.run import (
    AdaptiveScoringConfig,
    EvaluationConfig,
    FullScoringConfig,
    RacingConfig,
    RunConfig,
)
from cluster.config.secrets import secret_values
from cluster.config.section import LocatedText, OptionInfo, declared
from cluster.config.sweep import SweepSection
from cluster.config.tasks import TaskConfig
from gpo.data.example import Example
from gpo.errors import ConfigError
from gpo.models.credentials import Header
from gpo.scoring.adaptive import Adaptive
from gpo.scoring.candidates import CandidateScoring, FullScoring
from gpo.scoring.racing import Racing
from tests.configs import refused

KEY = "canary-key"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def raw(**sections: Any) -> dict[str, Any]:
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
    return {
        "models": {"task": dict(model), "optimizer": dict(model)},
        "tasks": [{"name": "task", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}}],
        **sections,
    }


def written(folder: Path, document: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def refusal(document: Any, overrides: tuple[str, ...], folder: Path) -> ConfigError:
    return refused(lambda: load_config(written(folder, document), overrides))


def test_the_preset_paper_is_gpo_as_published(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, raw(preset="paper")))
    settings = config.optimizer
    assert (settings.steps, settings.candidates) == (12, 8)
    assert settings.direction.model_dump() == {
        "form": "score",
        "failures": 3,
        "trajectory": {"kind": "retrieval", "by": "relevance", "k": 3},
    }
    assert settings.schedule.model_dump() == {"kind": "cosine", "initial": 50, "final": 10, "warmup_steps": 0}
    assert settings.refinement.kind == "generation"
    assert settings.acceptance.kind == "best_of_step"
    assert config.evaluation.scoring == FullScoringConfig(kind="full")
    assert config.tasks[0].prompt == "Let's think step by step."
    assert config.models.embedding == EmbeddedEmbeddingConfig()
    assert config.run.seeds == (0,)


def test_the_default_is_the_efficient_preset(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, raw()))
    assert config.preset == "efficient"
    assert config.evaluation.scoring == AdaptiveScoringConfig(kind="adaptive", block=3, most=12)
    assert config.optimizer.acceptance.kind == "best_so_far"
    trajectory = config.optimizer.direction.trajectory
    assert trajectory.model_dump() == {"kind": "retrieval", "by": "mixed", "k": 8}


@pytest.mark.parametrize(
    ("trajectory", "k"),
    [({"by": "importance"}, 3), ({"kind": "retrieval", "k": 5}, 5), ({"kind": "none"}, 0), ({"kind": "summary"}, 0)],
)
def test_a_preset_yields_to_what_is_stated(tmp_path: Path, trajectory: dict[str, Any], k: int) -> None:
    stated = {"direction": {"trajectory": trajectory}, "acceptance": {"kind": "within_error"}}
    sections = raw(preset="paper", optimizer=stated, evaluation={"scoring": {"kind": "racing", "block": 7}})
    config = load_config(written(tmp_path, sections))
    assert config.optimizer.direction.num_neighbours == k
    assert config.optimizer.acceptance.kind == "within_error"
    assert config.evaluation.scoring == RacingConfig(kind="racing", block=7)


def test_a_dumped_preset_is_read_as_it_was(tmp_path: Path) -> None:
    for preset in ("paper", "efficient"):
        config = load_config(written(tmp_path, raw(preset=preset)))
        (tmp_path / "dumped.yaml").write_text(dump(config), encoding="utf-8")
        assert load_config(tmp_path / "dumped.yaml") == config


def test_paths_start_at_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "configs", raw())
    data = load_config(Path("configs/config.yaml")).tasks[0].data
    assert data.model_dump()["train"] == tmp_path / "configs" / "a.jsonl"


def test_a_configuration_never_changes(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, raw()))
    with pytest.raises(ValidationError, match="frozen"):
        config.optimizer.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("optimizer.steps=3", ("optimizer", "steps"), 3),
        ("optimizer.direction.trajectory.k=0", ("optimizer", "direction", "trajectory", "k"), 0),
        ("run.seeds=[4, 5]", ("run", "seeds"), (4, 5)),
        ("tasks.0.prompt=Think, 1=1.", ("tasks", 0, "prompt"), "Think, 1=1."),
        ('tasks.0.prompt="Think: step by step."', ("tasks", 0, "prompt"), "Think: step by step."),
        ("tasks[0].name=other", ("tasks", 0, "name"), "other"),
        ("models.task.sampling.max_tokens=7", ("models", "task", "sampling", "max_tokens"), 7),
        ("evaluation.val_size=null", ("evaluation", "val_size"), None),
    ],
)
def test_an_override_replaces_the_value_in_the_file(
    override: str, place: tuple[str | int, ...], value: object, tmp_path: Path
) -> None:
    found: Any = load_config(written(tmp_path, raw(evaluation={"val_size": 9})), [override])
    for part in place:
        found = found[part] if isinstance(part, int) else getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    "prompt",
    [
        "Think: now.",
        "Which one? {a} or [b]: say.",
        "- Answer",
        'Say "yes": or',
        "Answer #1 only",
        "&a b",
        "a\nb",
        "2026-13-45",
    ],
)
def test_a_prompt_with_yaml_syntax_stays_a_text(prompt: str, tmp_path: Path) -> None:
    config = load_config(written(tmp_path, raw()), (f"tasks.0.prompt={prompt}",))
    assert config.tasks[0].prompt == prompt


def test_a_temperature_of_null_is_not_the_default(tmp_path: Path) -> None:
    default = load_config(written(tmp_path, raw())).models
    assert default.task.sampling.temperature == 0
    assert default.optimizer.sampling.temperature == 1

    config = load_config(written(tmp_path, raw()), ("models.task.sampling.temperature=null",))
    assert config.models.task.sampling.build().temperature is None
    (tmp_path / "dumped.yaml").write_text(dump(config), encoding="utf-8")
    assert load_config(tmp_path / "dumped.yaml").models.task.sampling.temperature is None


def _task_with_targets(folder: Path, targets: list[str], answer: dict[str, Any]) -> TaskConfig:
    for split in ("train", "val", "test"):
        rows = [{"input": f"{split} {index}", "target": target} for index, target in enumerate(targets)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {split: f"{split}.jsonl" for split in ("train", "val", "test")}
    task = {"name": "task", "data": data, "answer": answer}
    return load_config(written(folder, raw(tasks=[task]))).tasks[0]


@pytest.mark.parametrize(
    ("targets", "answer", "field"),
    [
        (["cat", "dog"], {"kind": "number"}, "tasks[0].answer.kind"),
        (["cat", "dog"], {"kind": "choice"}, "tasks[0].answer.kind"),
        (["cat", "dog"], {"kind": "boolean"}, "tasks[0].answer.kind"),
        (["cat", "dog"], {"kind": "label", "labels": ["cow", "pig"]}, "tasks[0].answer.labels"),
    ],
)
def test_targets_that_could_never_be_right_are_refused(
    targets: list[str], answer: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="would judge 6 of 6 targets wrong, such as 'cat'") as caught:
        _task_with_targets(tmp_path, targets, answer).build("tasks[0]", None, None)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("targets", "answer"),
    [
        (["cat", "dog"], {"kind": "exact"}),
        (["cat", "dog"], {"kind": "label"}),
        (["cat", "dog"], {"kind": "text"}),
        (["1,200", "-3"], {"kind": "number"}),
        (["Yes", "No"], {}),
        (["(A)"] * 30 + ["none"], {"kind": "choice"}),
    ],
)
def test_targets_that_fit_pass(targets: list[str], answer: dict[str, Any], tmp_path: Path) -> None:
    _task_with_targets(tmp_path, targets, answer).build("tasks[0]", None, None)


@pytest.mark.parametrize(
    ("override", "field", "problem"),
    [
        ("optimizer.steps", "--set", "'optimizer.steps' has no value"),
        ("=3", "--set", "has no value"),
        ("tasks.1.name=x", "--set tasks.1.name", "'1' is not an index of the 1 entries"),
        ("run.name.first=x", "--set run.name.first", "there is nothing below run.name"),
        ("run.seeds=[", "--set run.seeds", "not valid YAML"),
        ("run={seeds: [0], seeds: [1]}", "--set run", "the key 'seeds' is already in line 1"),
        ("optimizer.steps=many", "optimizer.steps", "'many' cannot be used"),
    ],
)
def test_an_override_that_cannot_be_used_is_refused(override: str, field: str, problem: str, tmp_path: Path) -> None:
    error = refusal(raw(run={"name": "run"}), (override,), tmp_path)
    assert error.field == field
    assert problem in error.problem
    assert error.remedy


@pytest.mark.parametrize(
    ("sections", "field", "said"),
    [
        ({"models": {}}, "models.task", "is missing; set it"),
        ({"tasks": []}, "tasks", "at least 1"),
        ({"taks": []}, "taks", "did you mean 'tasks'?"),
        ({"tasks": "none"}, "tasks", "'none' cannot be used; write a list"),
        ({"tasks": [{"name": "a/b", "data": {}}]}, "tasks[0].name", "'a/b' cannot be used; use letters"),
        ({"tasks": [{"name": "../a", "data": {}}]}, "tasks[0].name", "'../a' cannot be used; use letters"),
        ({"tasks": [{"name": "a", "data": {"train": "x"}}]}, "tasks[0].data.val", "is missing; set it"),
        ({"run": {"name": "../x"}}, "run.name", "'../x' cannot be used; use letters"),
        ({"run": {"seeds": [-1]}}, "run.seeds[0]", "-1 cannot be used; use a value of at least 0"),
        ({"optimizer": {"steps": 2.5}}, "optimizer.steps", "2.5 cannot be used; write a whole number"),
        ({"optimizer": {"candidates": 0}}, "optimizer.candidates", "0 cannot be used; use a value above 0"),
        (
            {"optimizer": {"steps": 3, "schedule": {"kind": "linear", "warmup_steps": 3}}},
            "optimizer.schedule.warmup_steps",
            "3 is too large for 3 steps; use a smaller value",
        ),
        ({"optimizer": {"schedule": {"kind": "fixed", "final": 3}}}, "optimizer.schedule.final", "is not an option"),
        ({"optimizer": {"acceptance": {"kind": "luck"}}}, "optimizer.acceptance.kind", "choose one of"),
        ({"evaluation": {"max_unscored": 1}}, "evaluation.max_unscored", "use a value below 1"),
        ({"evaluation": {"max_unscored": float("nan")}}, "evaluation.max_unscored", "write a finite number"),
        (
            {"models": {"task": {"model": "m", "sampling": {"extra": {"n": 4}}}, "optimizer": {"model": "m"}}},
            "models.task.sampling.extra.n",
            "is set by the program; leave it out",
        ),
        (
            {"models": {"task": {"model": "m", "base_url": "http://h/v1?key=x"}, "optimizer": {"model": "m"}}},
            "models.task.base_url",
            "holds a query",
        ),
        (
            {"tasks": [{"name": "a", "data": {"train": "a", "val": "b", "test": "c"}, "prompt": "  "}]},
            "tasks[0].prompt",
            "at least one character",
        ),
        (
            {
                "tasks": [
                    {"name": "a", "data": {"train": "a", "val": "b", "test": "c"}, "answer": {"labels": ["x", "y"]}}
                ]
            },
            "tasks[0].answer.labels",
            "needs kind: label",
        ),
        (
            {"optimizer": {"refinement": {"enforce": True}, "schedule": {"kind": "none"}}},
            "optimizer.refinement.enforce",
            "has no step size to enforce",
        ),
        (
            {"budget": {"usd": 1}},
            "budget.usd",
            "no model has a price; set models.task.price and models.optimizer.price",
        ),
    ],
)
def test_a_mistake_is_named_as_the_user_wrote_it(
    sections: dict[str, Any], field: str, said: str, tmp_path: Path
) -> None:
    error = refusal(raw(**sections), (), tmp_path)
    assert error.field == field
    assert said in str(error)


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_file_without_sections_is_refused(document: Any, tmp_path: Path) -> None:
    assert "has no sections" in refusal(document, (), tmp_path).problem


def test_the_default_endpoint_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ChatEndpointConfig(model="m").base_url == OPENAI_URL
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there/v1/")
    assert ChatEndpointConfig(model="m").base_url == "http://there/v1"
    assert ChatEndpointConfig(model="m", base_url="http://here/v1").base_url == "http://here/v1"


def test_a_password_in_the_environment_s_address_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:{KEY}@there/v1")
    document = raw()
    del document["models"]["task"]["base_url"]
    error = refusal(document, (), tmp_path)
    assert error.field == "models.task.base_url"
    assert KEY not in str(error)


def test_a_key_is_required_where_a_variable_was_named_and_by_openai() -> None:
    assert ChatEndpointConfig(model="m").key.required
    assert not ChatEndpointConfig(model="m", base_url="http://here/v1").key.required
    assert ChatEndpointConfig(model="m", base_url="http://here/v1", api_key_env="MY_KEY").key.required


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ({"kind": "embedded"}, "compact"),
        ({"kind": "embedded", "gguf": "large.gguf"}, "demonstrations"),
        ({"model": "m", "base_url": "http://here/v1"}, "demonstrations"),
    ],
)
def test_the_meta_prompt_suits_the_optimizer_model(model: dict[str, Any], kind: str, tmp_path: Path) -> None:
    document = raw()
    document["models"]["optimizer"] = model
    assert load_config(written(tmp_path, document)).meta_prompt.kind == kind
    papers = load_config(written(tmp_path, {**document, "preset": "paper"})).meta_prompt.kind
    assert papers == ("compact" if kind == "compact" else "full")


@pytest.mark.parametrize(
    ("at_once", "asked", "number"), [(16, None, 1), (64, None, 1), (65, None, 2), (9999, None, 8), (65, 1, 1)]
)
def test_the_number_of_replicas_follows_the_concurrent_calls(
    at_once: int, asked: int | None, number: int, tmp_path: Path
) -> None:
    overrides = [f"models.task.max_concurrency={at_once}"]
    if asked is not None:
        overrides.append(f"cluster.evaluator_replicas={asked}")
    assert load_config(written(tmp_path, raw()), overrides).num_replicas == number


VAL = [Example(f"{index}", ("yes" if index % 3 else "no",)) for index in range(90)]


def scoring_of(scoring: object) -> CandidateScoring:
    config = EvaluationConfig.model_validate({"max_unscored": 0.3, "scoring": scoring})
    return config.scoring.build(VAL, config.max_unscored, seed=4)


def test_scoring_is_built_as_configured() -> None:
    assert scoring_of("full") == scoring_of({"kind": "full"}) == FullScoring()
    raced = Racing(num_examples=90, block=7, alpha=0.01, max_unscored=0.3, seed=4)
    assert scoring_of({"kind": "racing", "block": 7, "alpha": 0.01}) == raced
    targets = ("no", "yes", "yes") * 30
    adaptive = Adaptive(num_examples=90, block=3, most=30, max_unscored=0.3, seed=4, targets=targets)
    assert scoring_of({"kind": "adaptive", "most": 30}) == scoring_of({"most": 30}) == adaptive


@pytest.mark.parametrize(
    "scoring",
    [
        *({"kind": "racing", **wrong} for wrong in ({"block": 1}, {"alpha": 0}, {"alpha": 1}, {"blok": 5})),
        *({"kind": "adaptive", **wrong} for wrong in ({"block": 0}, {"most": 1}, {"alpha": 0.1})),
        {"kind": "full", "block": 5},
        "fully",
        5,
        None,
    ],
)
def test_invalid_scoring_is_refused(scoring: object) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig.model_validate({"scoring": scoring})


def stated(fact: str) -> dict[str, Any]:
    """The options about which a fact is stated, with its value; those of the embedded and of every model, once."""
    fields = [*declared(RunConfig), *((f"sweep.{path}", field) for path, field in declared(SweepSection))]
    found: dict[str, Any] = {}
    for path, field in fields:  # some kinds of a section share the name of an option
        found[path] = found.get(path) or getattr(OptionInfo.of(field), fact)
    return {
        re.sub(r"models\.(task|optimizer|judge|embedding)\.", "models.*.", path): value
        for path, value in found.items()
        if value
    }


def test_the_facts_about_options_are_stated_on_them() -> None:
    of_models = (
        "base_url", "api_key_env", "api_key_file", "api_key_command", "api_key_header", "headers", "query",
        "max_concurrency", "requests_per_min", "tokens_per_min",
        "timeout_s", "max_attempts", "patience_s", "price", "check", "parallel", "threads",
    )  # fmt: skip
    locations = (
        "models.*.folder", "tasks.answer.folder", "tasks.program.folder", "tasks.prompt.file", "tasks.prompt.run",
        *(f"tasks.data.{name}" for name in ("train", "val", "test", "file", "few_shot", "root", "huggingface")),
        *(f"optimizer.{part}.folder" for part in ("direction.trajectory", "schedule", "refinement", "acceptance")),
        "optimizer.meta_prompt.template", "evaluation.scoring.folder",
    )  # fmt: skip
    of_sweeps = ("trials", "max_parallel_trials", "storage", "lease_s", "study", "holdout")
    assert set(stated("may_change")) == {
        "run.dir", "cluster", "cache", "budget", "stop", "record", "metrics", "tracing", "tracking",
        *(f"models.*.{name}" for name in of_models),
        *(f"sweep.{name}" for name in of_sweeps),
        *locations,
        *(f"sweep.holdout.{name}" for name in locations if name.startswith("tasks.")),
    }  # fmt: skip
    assert set(stated("tunable")) == {"optimizer", "models.optimizer", "evaluation.scoring"}
    assert set(stated("is_output")) == {"cache.path", "sweep.storage.path"}
    assert stated("sensitive") == {
        "models.*.base_url": "value",
        "models.*.api_key_env": "variable",
        "models.*.api_key_file": "file",
        "models.*.api_key_command": "value",
        "models.*.headers": "value",
        "models.*.headers.env": "variable",
        "models.*.query": "value",
        "models.*.sampling.extra": "value",
        "cache.url_env": "url_variable",
        "cluster.share_limits_env": "url_variable",
        "sweep.storage.url": "value",
        "sweep.storage.url_env": "url_variable",
    }


def test_a_text_of_a_file_keeps_its_folder_when_copied(tmp_path: Path) -> None:
    located = LocatedText("a.jsonl", tmp_path)
    for copied in (copy.deepcopy(located), pickle.loads(pickle.dumps(located))):  # noqa: S301
        assert (copied, copied.folder) == ("a.jsonl", tmp_path)


def with_task_model(**settings: Any) -> dict[str, Any]:
    document = raw()
    document["models"]["task"].update(settings)
    return document


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"headers": {"Authorization": f"Bearer {KEY}"}}, "headers.Authorization"),
        ({"headers": {"X-Api-Token": KEY}}, "headers.X-Api-Token"),
        ({"headers": {"Cookie": KEY}}, "headers.Cookie"),
        ({"headers": {"X-Tag": f"{KEY}\nHost: elsewhere"}}, "headers.X-Tag"),
        ({"headers": {"X-Tag": {"env": KEY}}}, "headers"),
        ({"headers": {f"{KEY}: X": "a"}}, "headers"),
        ({"headers": {"Content-Type": "text/plain"}}, "headers"),
        ({"headers": KEY}, "headers"),
        ({"query": {"key": KEY}}, "query.key"),
        ({"query": {"access_token": KEY}}, "query.access_token"),
        ({"query": {"api-version": [KEY]}}, "query"),
        ({"api_key_command": KEY}, "api_key_command"),
        ({"api_key_command": []}, "api_key_command"),
        ({"api_key_command": ["pass", KEY], "api_key_env": "A_KEY"}, "api_key_command"),
        ({"api_key_header": "Content-Length"}, "api_key_header"),
        ({"api_key_header": f"Authorization: Bearer {KEY}"}, "api_key_header"),
    ],
)
def test_unusable_headers_parameters_and_commands_are_refused_and_not_shown(
    settings: dict[str, Any], field: str, tmp_path: Path
) -> None:
    error = refusal(with_task_model(**settings), (), tmp_path)
    assert error.field.startswith(f"models.task.{field}")
    assert KEY not in f"{error.problem} {error.remedy}"


def test_headers_parameters_and_commands_reach_the_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "canary-token-77aa01")
    document = with_task_model(
        headers={"X-Organization": "acme", "X-Api-Token": {"env": "GATEWAY_TOKEN"}},
        query={"api-version": "2024-06-01"},
        api_key_header="api-key",
        api_key_command=["print-key", "--now"],
    )
    config = load_config(written(tmp_path, document))
    assert isinstance(config.models.task, ChatEndpointConfig)
    endpoint = config.models.task.build()
    assert set(endpoint.headers) == {Header("X-Organization", "acme"), Header("X-Api-Token", env="GATEWAY_TOKEN")}
    assert endpoint.query == (("api-version", "2024-06-01"),)
    assert (endpoint.key_header, endpoint.key.command) == ("api-key", ("print-key", "--now"))
    variant = {"headers": {"X-Organization": "acme"}, "query": {"api-version": "2024-06-01"}}
    assert config.models.task.variant == variant
    assert validate(yaml.safe_load(dump(config)), base_dir=Path("/elsewhere")) == config
    assert "canary" not in dump(config)
    assert b"canary-token-77aa01" in secret_values(config)
