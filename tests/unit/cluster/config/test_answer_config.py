from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import RunConfig, load_config
from cluster.config.loading import dump, validate
from cluster.session.models import Access, EmbeddedUrls, build_evaluators, embedded_specs, is_judged
from cluster.session.preflight import check_models, explained_refusal
from gpo.data.catalogue import known_task
from gpo.data.example import Example
from gpo.data.task import Task
from gpo.errors import ConfigError, ModelRefused, RefusalReason
from gpo.evaluation.grading import ModelGrader, RuleGrader
from gpo.evaluation.metrics import (
    BooleanScorer,
    ChoiceScorer,
    CustomScorer,
    ExactScorer,
    NumberScorer,
    ParsedScorer,
    RougeScorer,
)
from gpo.evaluation.metrics.paper import PaperChoiceScorer, PaperNumberScorer, PaperTextScorer, PaperWordsScorer
from gpo.limits.limiter import LocalLimiter
from tests.configs import refused

MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
JUDGE = {"kind": "judge", "rubric": "Polite."}
SCORING = """
def metric(answer, targets, input): return answer in targets
def parse(answer, input): return answer.strip("<>")
def broken(*arguments): return {}["gone"]
def generous(*arguments): return 2
"""


@pytest.fixture(autouse=True)
def _search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def config(folder: Path, answer: dict[str, Any], targets: tuple[str, ...] = ("cat", "dog"), **models: Any) -> RunConfig:
    """A configuration in a folder, with the data that it names."""
    for split in ("train", "val", "test"):
        rows = [{"input": f"{split} {index}", "target": target} for index, target in enumerate(targets)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document = {
        "models": {"task": MODEL, "optimizer": MODEL, **models},
        "tasks": [
            {"name": "task", "data": {split: f"{split}.jsonl" for split in ("train", "val", "test")}, "answer": answer}
        ],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_config(folder / "config.yaml")


def built(folder: Path, answer: dict[str, Any], targets: tuple[str, ...] = ("cat", "dog")) -> Task:
    return config(folder, answer, targets).tasks[0].build("tasks[0]", None, None)


def refusal(folder: Path, answer: dict[str, Any], targets: tuple[str, ...] = ("cat", "dog")) -> ConfigError:
    return refused(lambda: built(folder, answer, targets))


@pytest.mark.parametrize(
    ("answer", "targets", "scorer"),
    [
        ({"parser": "paper"}, ("(A)", "(B)"), PaperChoiceScorer()),
        ({"parser": "paper"}, ("3", "-4"), PaperNumberScorer()),
        ({"parser": "paper", "kind": "text"}, ("a long text", "another"), PaperTextScorer()),
        ({"parser": "default", "kind": "text"}, ("a long text", "another"), RougeScorer()),
        ({"parser": "default"}, ("(A)", "(B)"), ChoiceScorer()),
    ],
)
def test_the_parser_is_chosen_by_the_kind_of_answer(
    answer: dict[str, Any], targets: tuple[str, ...], scorer: object, tmp_path: Path
) -> None:
    assert built(tmp_path, answer, targets).scorer == scorer


WORDS = (Example("Sort: b a", ("a b",)),)
OPTIONS = (Example("Which?\n(A) x\n(B) y", ("(A)",)),)


@pytest.mark.parametrize(
    ("answer", "examples", "name", "scorer"),
    [
        ({}, WORDS, "word_sorting", ExactScorer()),
        ({"parser": "paper"}, WORDS, "word_sorting", PaperWordsScorer()),
        ({"parser": "paper", "kind": "exact"}, WORDS, "word_sorting", PaperWordsScorer()),
        ({"kind": "text"}, WORDS, "word_sorting", RougeScorer()),
        ({"parser": "paper", "kind": "text"}, WORDS, "word_sorting", PaperTextScorer()),
        ({"parser": "paper"}, OPTIONS, "snarks", PaperChoiceScorer()),
        ({}, (Example("?", ("Yes",)),), "navigate", BooleanScorer()),
    ],
)
def test_a_known_benchmark_decides_the_scorer_unless_a_kind_is_set(
    answer: dict[str, Any], examples: tuple[Example, ...], name: str, scorer: object, tmp_path: Path
) -> None:
    section = config(tmp_path, answer).tasks[0].answer
    assert section.scorer(list(examples), "tasks[0].answer", known_task("bbh", name)) == scorer


@pytest.mark.parametrize("kind", ["exact", "label", None])
def test_the_paper_has_no_rule_for_every_kind(kind: str | None, tmp_path: Path) -> None:
    error = refusal(tmp_path, {"kind": kind, "parser": "paper"})
    assert error.field == "tasks[0].answer.parser"
    assert f"no rule for answers of kind {kind or 'exact'!r}" in error.problem
    assert "set kind to one of: choice, boolean, number, text" in error.remedy


def test_functions_are_found_in_the_configurations_folder_and_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "own_here.py").write_text(SCORING, encoding="utf-8")
    (tmp_path / "own_there.py").write_text(SCORING, encoding="utf-8")
    for module in ("own_here", "own_there"):
        scorer = built(folder, {"kind": "custom", "metric": f"{module}:metric"}).scorer
        assert isinstance(scorer, CustomScorer)
        assert [scorer.score(answer, Example("", ("cat",))) for answer in ("cat", "dog")] == [1.0, 0.0]
        parsed = built(folder, {"kind": "number", "parser": f"{module}:parse"}, ("1", "2")).scorer
        assert isinstance(parsed, ParsedScorer)
        assert parsed.scorer == NumberScorer()


def test_a_copy_finds_a_function_of_the_working_directory_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("configs", "working", "elsewhere")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(tmp_path / "working")
    (tmp_path / "working/own_there.py").write_text(SCORING, encoding="utf-8")
    original = config(tmp_path / "configs", {"kind": "custom", "metric": "own_there:metric"})
    assert original.tasks[0].answer.folder == tmp_path / "working"
    monkeypatch.chdir(tmp_path / "elsewhere")
    copy = validate(yaml.safe_load(dump(original)), base_dir=tmp_path / "elsewhere")
    assert copy == original
    assert copy.tasks[0].build("tasks[0]", None, None).scorer.score("cat", Example("", ("cat",))) == 1.0  # type: ignore[union-attr]


def test_two_tasks_with_modules_of_the_same_name_use_their_own(tmp_path: Path) -> None:
    for name, value in (("first", 1), ("second", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.py").write_text(f"def metric(*_): return {value}", encoding="utf-8")
    answers = [{"kind": "custom", "metric": "metrics:metric", "folder": name} for name in ("first", "second")]
    scorers = [built(tmp_path, answer).scorer for answer in answers]
    assert [scorer.score("", Example("", ("",))) for scorer in scorers] == [1.0, 0.0]  # type: ignore[union-attr]


@pytest.mark.parametrize(("folder", "lack"), [("gone", "does not exist"), ("train.jsonl", "is not a folder")])
def test_a_missing_folder_is_named(folder: str, lack: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, {"kind": "custom", "metric": "own_gone:metric", "folder": folder})
    assert error.field == "tasks[0].answer.folder"
    assert f"{folder}' {lack}, and there is no module 'own_gone'" in error.problem


def test_a_refusal_lists_the_folders_that_were_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    problem = refusal(tmp_path, {"kind": "custom", "metric": "own_gone:metric"}).problem
    assert f"no module 'own_gone' in '{tmp_path}' or in '{tmp_path}/working' or on Python's search path" in problem


@pytest.mark.parametrize(
    ("answer", "field", "problem", "remedy"),
    [
        ({"kind": "custom", "metric": "own_gone:metric"}, "metric", "there is no module 'own_gone'", "installed"),
        ({"kind": "custom", "metric": "own_bad:gone"}, "metric", "'gone' is not defined", "name a function"),
        (
            {"kind": "custom", "metric": "own_bad:broken"},
            "metric",
            "tried on the first target: the function own_bad:broken failed: KeyError: 'gone'",
            "correct",
        ),
        ({"kind": "custom", "metric": "own_bad:generous"}, "metric", "returned 2, not a number from 0 to 1", "correct"),
        ({"kind": "exact", "parser": "own_gone:parse"}, "parser", "there is no module 'own_gone'", "installed"),
        ({"kind": "exact", "parser": "own_bad:generous"}, "parser", "returned 2, not a text", "correct"),
        ({"kind": "custom", "metric": "metric"}, "metric", "'metric' is not a function", "module:function"),
        ({"kind": "custom", "metric": "own_bad.py:metric"}, "metric", "is a file", "without .py"),
        ({"kind": "exact", "parser": "./own_bad.py:parse"}, "parser", "is a file", "without .py"),
        ({"kind": "custom", "metric": "a-b:c"}, "metric", "is not a function", "module:function"),
        ({"kind": "custom", "metric": "a.b:c()"}, "metric", "is not a function", "module:function"),
        ({"kind": "custom", "metric": "a:b\n"}, "metric", "is not a function", "module:function"),
        ({"parser": "papers"}, "parser", "'papers' is not a parser", "choose default, paper"),
        ({"parser": ["paper"]}, "parser", "cannot be used", "write a text"),
        ({"kind": "custom"}, "metric", "is missing", "set it"),
        ({"kind": "judge"}, "rubric", "is missing", "set it"),
        ({"kind": "judge", "rubric": " "}, "rubric", "cannot be used", "at least one character"),
        ({**JUDGE, "scale": 0}, "scale", "0 cannot be used", "at least 1"),
        ({**JUDGE, "scale": 101}, "scale", "101 cannot be used", "at most 100"),
        ({**JUDGE, "parser": "paper"}, "parser", "is used only by kinds that judge by rule", "leave it out"),
        ({"metric": "own_bad:metric"}, "metric", "needs kind: custom", "leave it out"),
        ({"kind": "exact", "rubric": "x"}, "rubric", "needs kind: judge", "leave it out"),
        ({"kind": "exact", "scale": 5}, "scale", "needs kind: judge", "leave it out"),
        ({"kind": "exact", "folder": "."}, "folder", "is not used by metric or parser", "leave it out"),
    ],
)
def test_a_mistake_is_found_before_anything_is_paid_for(
    answer: dict[str, Any], field: str, problem: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "own_bad.py").write_text(SCORING, encoding="utf-8")
    error = refusal(tmp_path, answer)
    assert error.field == f"tasks[0].answer.{field}"
    assert problem in error.problem
    assert remedy in error.remedy


def test_the_optimizer_model_judges_at_temperature_0_where_no_judge_is_named(tmp_path: Path) -> None:
    judging = config(tmp_path, JUDGE).models.judging
    assert (judging.model, judging.sampling.temperature) == ("a-model", 0.0)  # type: ignore[union-attr]
    own = config(tmp_path, JUDGE, judge={**MODEL, "model": "judge"}).models.judging
    assert (own.model, own.sampling.temperature) == ("judge", 0.0)  # type: ignore[union-attr]
    without = {**MODEL, "sampling": {"temperature": None}}
    assert config(tmp_path, JUDGE, optimizer=without).models.judging.sampling.temperature is None


def access(urls: EmbeddedUrls) -> Access:
    return Access(urls, LocalLimiter(), "account")


def test_only_a_judged_task_needs_the_judge(tmp_path: Path) -> None:
    judge = {"kind": "embedded", "parallel": 3}
    assert embedded_specs(config(tmp_path, {}, judge=judge)) == []
    judged = config(tmp_path, JUDGE, judge=judge)
    assert is_judged(judged)
    (spec,) = embedded_specs(judged)
    assert spec.parallel == 3
    (evaluator,) = build_evaluators(judged, [built(tmp_path, JUDGE)], access({spec: "http://127.0.0.1:9/v1"}))
    assert isinstance(evaluator.grader, ModelGrader)
    assert evaluator.grader.sampling.temperature == 0.0
    (evaluator,) = build_evaluators(config(tmp_path, {}), [built(tmp_path, {})], access({}))
    assert evaluator.grader == RuleGrader(ExactScorer())
    # A task that is judged by rule, of a configuration in which another is not: the judge is not served then.
    (evaluator,) = build_evaluators(judged, [built(tmp_path, {})], access({}))
    assert evaluator.grader == RuleGrader(ExactScorer())


async def test_a_judge_is_checked_where_it_is_used(tmp_path: Path) -> None:
    reachable = {**MODEL, "check": False}
    models = {"task": reachable, "optimizer": reachable, "judge": {**MODEL, "api_key_env": "NO_SUCH_VARIABLE_HERE"}}
    await check_models(config(tmp_path, {}, **models), [built(tmp_path, {})])
    judged = [built(tmp_path, JUDGE)]
    with pytest.raises(ConfigError) as caught:
        await check_models(config(tmp_path, JUDGE, **models), judged)
    assert caught.value.field == "models.judge.api_key_env"
    with pytest.raises(ConfigError) as caught:
        await check_models(config(tmp_path, JUDGE, task=reachable), judged, roles=("task", "judge"))
    assert caught.value.field == "models.optimizer.base_url"


@pytest.mark.parametrize("role", ["task", "optimizer", "judge"])
def test_a_refused_key_is_reported_for_the_role_that_uses_it(role: str, tmp_path: Path) -> None:
    models: dict[str, Any] = {
        "task": {**MODEL, "api_key_env": "TASK_KEY"},
        "optimizer": {**MODEL, "api_key_env": "OPTIMIZER_KEY"},
        "judge": {**MODEL, "api_key_file": str(tmp_path / "key")},
    }
    found = config(tmp_path, JUDGE, **models)
    place = getattr(found.models, role).key.location
    refusal = ModelRefused("HTTP 401: no", RefusalReason.KEY, MODEL["model"], MODEL["base_url"], place)
    error = explained_refusal(found, refusal)
    assert isinstance(error, ConfigError)
    assert error.field.startswith(f"models.{role}.api_key")
    assert place in error.problem
