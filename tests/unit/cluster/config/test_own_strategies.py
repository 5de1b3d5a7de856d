"""Strategies of a user in the configuration: how they are named, checked, resumed, compared, tuned and shipped."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import RunConfig
from cluster.config.comparison import load_comparison
from cluster.config.loading import dump, load_config, validate
from cluster.config.section import first_difference, lasting
from cluster.config.sweep import Choices
from cluster.evaluating.plan import plan_table, planned
from cluster.session.models import build_tasks
from cluster.submitting.package import package
from cluster.sweep.space import Space
from gpo.data.example import Example
from gpo.errors import ConfigError
from gpo.models.protocol import Embedder
from gpo.scoring.candidates import FullScoring
from gpo.strategies.meta_prompt import FullMetaPrompt
from gpo.strategies.retrieval import RecencyRetriever
from gpo.testing.fakes import WordEmbedder
from gpo.testing.samples import TRAJECTORIES
from tests.configs import refused, small_config, triage_task
from tests.paths import ROOT

STRATEGIES = """
    from dataclasses import dataclass
    from gpo.scoring.candidates import FullScoring
    from gpo.strategies.acceptance import BestOfStep
    from gpo.strategies.retrieval import RecencyRetriever, RelevanceRetriever

    def accept(**options): return BestOfStep()
    def schedule(num_steps, low=1): return lambda step: low + num_steps
    def retrieve(embedder): return RelevanceRetriever(embedder)
    class Refine:
        def __init__(self, text="Improve."): self.text = text
        def instruction(self, evidence, step_size): return self.text
    @dataclass(frozen=True)
    class Score(FullScoring):
        num_val: int
        max_unscored: float
        seed: int

    def nothing(): return None
    def broken(): return 1 / 0
    async def later(): return BestOfStep()
    class Plain:
        def choose(self, candidates): ...
        def retrieve(self, trajectory, *, k): ...
    class Async:
        async def choose(self, trajectory, candidates): ...
        async def __call__(self, step): ...
    class Empty:
        def instruction(self, evidence, step_size): return " "
    def negative(num_steps): return lambda step: 2 - step
    def whole(): return lambda step: 2.5
    def no_arguments(): return lambda: 2
    def own_class(): return Refine
"""
ACCEPTANCE, SCHEDULE, REFINEMENT = "optimizer.acceptance", "optimizer.schedule", "optimizer.refinement"
RETRIEVAL, SCORING = "optimizer.direction.trajectory", "evaluation.scoring"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_parts.py").write_text(textwrap.dedent(STRATEGIES), encoding="utf-8")
    return tmp_path


def sections(**kinds: Any) -> dict[str, Any]:
    """A configuration with these strategies, each by its last word, such as ``acceptance``."""
    raw = {**small_config("http://127.0.0.1:9/v1"), "tasks": [triage_task()]}
    for name, kind in kinds.items():
        section = kind if isinstance(kind, dict) else {"kind": f"own_parts:{kind}"}
        if name == "scoring":
            raw["evaluation"] = {**raw["evaluation"], "scoring": section}
        else:
            raw["optimizer"] = {
                **raw["optimizer"],
                **({"direction": {name: section}} if name == "trajectory" else {name: section}),
            }
    return raw


def config(folder: Path, **kinds: Any) -> RunConfig:
    return validate(sections(**kinds), base_dir=folder)


def refusal(folder: Path, **kinds: Any) -> ConfigError:
    return refused(lambda: build_tasks(config(folder, **kinds)))


def test_each_kind_is_built_with_its_options_and_what_the_program_passes(folder: Path) -> None:
    made = config(
        folder,
        acceptance={"kind": "own_parts:accept", "options": {"any": ["thing", {"deep": None}]}},
        schedule={"kind": "own_parts:schedule", "options": {"low": 5}},
        trajectory={"kind": "own_parts:retrieve", "k": 3},
        refinement="Refine",
        scoring="Score",
    )
    build_tasks(made)
    embedder: Embedder = WordEmbedder()
    retriever = made.optimizer.direction.build_retriever(embedder)
    assert retriever.own.embedder is embedder  # type: ignore[attr-defined]
    assert made.optimizer.direction.num_neighbours == 3
    assert made.optimizer.schedule.build(7)(0) == 12
    assert made.optimizer.refinement.build().instruction("", None) == "Improve."
    scoring = made.evaluation.scoring.build([Example("?", ("yes",))] * 20, 0.05, seed=3)
    assert vars(scoring.own) == {"num_val": 20, "max_unscored": 0.05, "seed": 3}  # type: ignore[attr-defined]
    assert isinstance(scoring.own, FullScoring)  # type: ignore[attr-defined]


def test_the_other_kinds_and_defaults_remain(folder: Path) -> None:
    made = validate(sections(), base_dir=folder)
    assert made.optimizer.refinement.kind == "generation"
    assert made.optimizer.schedule.kind == "cosine"
    assert isinstance(
        config(folder, trajectory={"kind": "retrieval", "by": "recency"}).optimizer.direction.build_retriever(
            WordEmbedder()
        ),
        RecencyRetriever,
    )


def test_a_kind_alone_can_be_a_function_and_keeps_the_folder_of_its_file(folder: Path) -> None:
    (folder / "base").mkdir()
    (folder / "own_parts.py").rename(folder / "base/own_parts.py")
    (folder / "base/base.yaml").write_text("evaluation: {scoring: 'own_parts:Score'}", encoding="utf-8")
    raw = {"extends": "base/base.yaml", **sections()}
    (folder / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    made = load_config(folder / "config.yaml")
    assert made.evaluation.scoring.folder == folder / "base"  # type: ignore[union-attr]
    build_tasks(made)


@pytest.mark.parametrize(
    ("kinds", "field", "problem"),
    [
        ({"acceptance": {"kind": "own_gone:f"}}, f"{ACCEPTANCE}.kind", "there is no module 'own_gone' in '/"),
        ({"acceptance": "gone"}, f"{ACCEPTANCE}.kind", "'gone' is not defined in the module 'own_parts'"),
        ({"acceptance": {"kind": "own_parts.py:f"}}, f"{ACCEPTANCE}.kind", "'own_parts.py:f' is a file"),
        ({"acceptance": {"kind": "a:b:c"}}, f"{ACCEPTANCE}.kind", "'a:b:c' is not a function"),
        ({"acceptance": {"kind": "own_parts.accept"}}, f"{ACCEPTANCE}.kind", "'own_parts.accept' is unknown"),
        (
            {"acceptance": {"kind": "own_parts:accept", "folder": "gone"}},
            f"{ACCEPTANCE}.folder",
            "does not exist, and there is no module 'own_parts'",
        ),
        ({"acceptance": {"kind": "own_parts:accept", "option": {}}}, f"{ACCEPTANCE}.option", "is not an option"),
        ({"acceptance": {"kind": "own_parts:accept", "options": 3}}, f"{ACCEPTANCE}.options", "3 cannot be used"),
        ({"acceptance": "broken"}, f"{ACCEPTANCE}.kind", "own_parts:broken failed: ZeroDivisionError"),
        ({"acceptance": "later"}, f"{ACCEPTANCE}.kind", "own_parts:later is async; write a plain function"),
        ({"acceptance": "nothing"}, f"{ACCEPTANCE}.kind", "returned None, which has no method choose(trajectory, cand"),
        ({"acceptance": "Plain"}, f"{ACCEPTANCE}.kind", "cannot be called as choose(trajectory, candidates): too many"),
        ({"acceptance": "Async"}, f"{ACCEPTANCE}.kind", "whose method choose is async, and must be a plain method"),
        (
            {"acceptance": {"kind": "own_parts:nothing", "options": {"rate": 1}}},
            f"{ACCEPTANCE}.kind",
            "got an unexpected keyword argument 'rate'",
        ),
        ({"trajectory": "Plain"}, f"{RETRIEVAL}.kind", "whose method retrieve is a plain method, and must be async"),
        ({"trajectory": "retrieve", "schedule": "Async"}, f"{SCHEDULE}.kind", "whose method __call__ is async"),
        ({"schedule": "negative"}, f"{SCHEDULE}.kind", "step 2 of own_parts:negative returned 0, not a whole number"),
        ({"schedule": "whole"}, f"{SCHEDULE}.kind", "returned 2.5, not a whole number from 1, or None"),
        ({"schedule": "no_arguments"}, f"{SCHEDULE}.kind", "cannot be called as __call__(step)"),
        (
            {"schedule": {"kind": "own_parts:schedule", "options": {"num_steps": 3}}},
            f"{SCHEDULE}.options.num_steps",
            "is passed by the program",
        ),
        (
            {"schedule": {"kind": "own_parts:schedule", "options": {"low": float("inf")}}},
            f"{SCHEDULE}.options.low",
            "inf cannot be used",
        ),
        ({"refinement": "Empty"}, f"{REFINEMENT}.kind", "instruction of own_parts:Empty returned ' ', not a text with"),
        ({"refinement": "own_class"}, f"{REFINEMENT}.kind", "cannot be called as instruction(evidence, step_size)"),
        (
            {"refinement": "Refine", "meta_prompt": {"kind": "compact"}},
            "optimizer.meta_prompt.kind",
            "does not show the instruction of optimizer.refinement",
        ),
        ({"scoring": "accept"}, f"{SCORING}.kind", "which has no method async first(evaluator, prompt)"),
    ],
)
def test_a_mistake_is_named_before_a_model_is_called(
    kinds: dict[str, Any], field: str, problem: str, folder: Path
) -> None:
    error = refusal(folder, **kinds)
    assert (error.field, problem in error.problem) == (field, True), str(error)


def test_a_meta_prompt_of_the_user_does_not_show_a_refinement_of_the_user(folder: Path) -> None:
    (folder / "own.txt").write_text("Improve {{ prompt }}: <START><END>", encoding="utf-8")
    error = refusal(folder, refinement="Refine", meta_prompt={"template": "own.txt"})
    assert error.field == "optimizer.meta_prompt.template"
    assert "keep one of the two" in error.remedy


@pytest.mark.parametrize("kind", [None, "full"])
def test_a_refinement_of_the_user_selects_the_meta_prompt_that_shows_it(kind: str | None, folder: Path) -> None:
    made = config(folder, refinement="Refine", meta_prompt={"kind": kind})
    built = made.meta_prompt.build(made.optimizer.refinement, "score")
    assert isinstance(built, FullMetaPrompt)
    assert built.refinement == made.optimizer.refinement.build()


@pytest.mark.parametrize("kind", ["best", None])
def test_unknown_kinds_are_told_of_functions(kind: str | None, folder: Path) -> None:
    error = refusal(folder, acceptance={"kind": kind})
    assert error.problem == f"{kind!r} is unknown"
    assert "within_error, module:function" in error.remedy


def test_a_schedule_is_built_for_a_search_without_steps(folder: Path) -> None:
    raw = sections(schedule="schedule")
    raw["optimizer"] |= {"steps": 0}
    build_tasks(validate(raw, base_dir=folder))


def test_a_copy_of_the_configuration_finds_the_strategies_and_another_strategy_is_a_difference(folder: Path) -> None:
    original = config(folder, acceptance={"kind": "own_parts:accept", "options": {"rate": 1}}, scoring="Score")
    copy = validate(yaml.safe_load(dump(original)), base_dir=Path("/elsewhere"))
    assert copy == original
    assert copy.optimizer.acceptance.folder == folder  # type: ignore[union-attr]
    changed = config(folder, acceptance={"kind": "own_parts:accept", "options": {"rate": 2}}, scoring="Score")
    difference = first_difference(lasting(original), lasting(changed))
    assert difference == ("optimizer.acceptance.options.rate", 1, 2)
    assert first_difference(lasting(original), lasting(config(folder, scoring="Score"))) is not None


def test_another_process_builds_its_own_strategy(folder: Path) -> None:
    acceptance = config(folder, acceptance="accept").optimizer.acceptance.build()
    assert acceptance.own is acceptance.own  # type: ignore[attr-defined]
    (folder / "pickled").write_bytes(pickle.dumps((acceptance, TRAJECTORIES["one step"])))
    code = (
        "import pickle; acceptance, trajectory = pickle.load(open('pickled', 'rb')); "
        "print(acceptance.choose(trajectory, trajectory.steps[0].candidates).prompt.text)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout == "Think slowly, step by step.\n", done.stderr


def test_the_plan_of_a_scoring_of_the_user_is_that_of_full_scoring(folder: Path) -> None:
    own, full = config(folder, scoring="Score"), config(folder, scoring={"kind": "full"})
    plans = [planned(made, build_tasks(made)) for made in (own, full)]
    assert plans[0] == plans[1]
    assert "evaluation.scoring is your own" in str(plan_table(own, plans[0]).caption)
    assert plan_table(full, plans[1]).caption is None


def test_a_method_of_a_comparison_can_have_strategies_of_the_user(folder: Path) -> None:
    raw = {**sections(), "compare": {"mine": {"optimizer": {"acceptance": {"kind": "own_parts:accept"}}}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    comparison = load_comparison(folder / "config.yaml", [], [])
    assert comparison.methods["mine"].optimizer.acceptance.kind == "own_parts:accept"


def space(folder: Path, options: Mapping[str, Choices], **kinds: Any) -> Space:
    raw = sections(**kinds)
    return Space(raw, validate(raw, base_dir=folder), folder, options)


def test_a_sweep_tunes_options_and_kinds_and_checks_them_first(folder: Path) -> None:
    low = {"optimizer.schedule.options.low": Choices(choices=(1, 2))}
    tuned = space(folder, low, schedule="schedule")
    tasks = build_tasks(tuned.base)
    tuned.check(tasks)
    assert tuned.config({"optimizer.schedule.options.low": 2}).optimizer.schedule.build(3)(0) == 5
    kinds = {"optimizer.schedule.kind": Choices(choices=("cosine", "own_parts:schedule"))}
    space(folder, kinds).check(tasks)
    bad = {"optimizer.schedule.kind": Choices(choices=("cosine", "own_parts:negative"))}
    with pytest.raises(ConfigError, match="own_parts:negative returned 0"):
        space(folder, bad).check(tasks)


def test_the_module_is_shipped_with_a_job_even_if_git_ignores_it(folder: Path) -> None:
    (folder / "parts").mkdir()
    (folder / "own_parts.py").rename(folder / "parts/own_parts.py")
    (folder / ".gitignore").write_text("/parts/\n", encoding="utf-8")
    raw = sections(scoring={"kind": "own_parts:Score", "folder": "parts"})
    (folder / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    shipped = package(folder, folder / "config.yaml", load_config(folder / "config.yaml"))
    assert "parts/own_parts.py" in shipped.names
