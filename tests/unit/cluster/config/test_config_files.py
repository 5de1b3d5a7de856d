"""The configurations that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import load_config
from cluster.config.comparison import METHODS, STANDARD, load_comparison
from cluster.config.files import read_extended
from cluster.config.run import RunConfig
from cluster.config.schema import schema
from cluster.config.sweep import SweepSection
from cluster.config.tasks import FilesConfig, SplitFileConfig
from cluster.session.models import build_tasks, check_strategies
from cluster.sweep.config import load_sweep
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.evaluation.metrics import BooleanScorer
from gpo.prompt import Prompt
from tests.configs import collect_leftovers, option_texts
from tests.paths import ROOT

CONFIGS = ROOT / "configs"
SCHEMA = CONFIGS / "schema.json"
CONTENT = {path: read_extended(path) for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "serve"}
COMPARISONS = [path for path, content in CONTENT.items() if "compare" in content]
SWEEPS = [path for path, content in CONTENT.items() if {"tasks", "models", "sweep"} <= content.keys()]
RUNS = [
    path
    for path, content in CONTENT.items()
    if {"tasks", "models"} <= content.keys() and path not in (*COMPARISONS, *SWEEPS)
]
PARTS = [path for path in CONTENT if path not in (*RUNS, *COMPARISONS, *SWEEPS)]


OF_BBH = Task(
    "navigate",
    Prompt("Think."),
    {split: (Example("?", ("Yes",)),) * 48 for split in Split},
    BooleanScorer(),
)
"""A task as large as BBH's."""


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def test_the_documented_configurations_exist() -> None:
    assert {
        "quickstart.yaml",
        "template.yaml",
        "endpoint.yaml",
        *(f"paper/{one}.yaml" for one in ("bbh", "mmlu", "gsm8k", "wsc", "webnlg")),
    } <= {name(path) for path in RUNS}
    assert {"paper/compare.yaml", "paper/ablation-schedule.yaml"} <= {name(path) for path in COMPARISONS}
    assert {path.stem for path in METHODS.glob("*.yaml")} == set(STANDARD)


def test_every_other_file_is_extended_or_a_method() -> None:
    assert {name(path) for path in PARTS} == {
        "paper/settings.yaml",
        "sweeps/space.yaml",
        *(f"methods/{one}.yaml" for one in STANDARD),
    }


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_every_configuration_loads_with_the_projects_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    config = load_config(path)
    data = [task.data for task in config.tasks]
    # A benchmark's folder is the user's own.
    if all(isinstance(one, FilesConfig | SplitFileConfig) for one in data):
        assert len(build_tasks(config)) == len(data)


@pytest.mark.parametrize("path", COMPARISONS, ids=name)
def test_every_comparison_loads_and_its_methods_differ(path: Path) -> None:
    comparison = load_comparison(path, (), ())
    optimizers = [config.optimizer for config in comparison.methods.values()]
    assert len(optimizers) >= 2
    assert all(one != other for index, one in enumerate(optimizers) for other in optimizers[:index])
    for config in comparison.methods.values():
        assert config.model_copy(update={"optimizer": comparison.base.optimizer}) == comparison.base
        check_strategies(config, [OF_BBH])


def test_the_quickstarts_sweep_loads_with_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_sweep(CONFIGS / "sweeps" / "quickstart.yaml", ())
    assert config.holdout is not None
    assert [task.name for task in (*config.tasks, *config.holdout_tasks)] == ["sentiment", "language"]
    assert config.space.paper["optimizer.schedule.initial"] == 50


@pytest.mark.parametrize("suite", ["bbh", "mmlu"])
def test_the_benchmark_sweeps_are_valid_apart_from_the_users_data(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.sweep.config.build_tasks", lambda config: [OF_BBH for _ in config.tasks])
    config = load_sweep(CONFIGS / "sweeps" / f"{suite}.yaml", ())
    assert config.holdout is not None
    assert not {task.name for task in config.base.tasks} & {task.name for task in config.holdout.tasks}
    assert config.num_steps == 18
    paper = config.space.config(config.space.paper)
    reference = load_config(CONFIGS / "paper" / f"{suite}.yaml")
    assert (paper.optimizer, paper.models) == (reference.optimizer, reference.models)


def test_the_methods_try_equally_many_prompts() -> None:
    methods = load_comparison(CONFIGS / "quickstart.yaml", (), ()).methods
    assert tuple(methods) == STANDARD
    assert len({(config.optimizer.num_steps(48), config.optimizer.candidates) for config in methods.values()}) == 1


@pytest.mark.parametrize("suite", ["bbh", "mmlu", "gsm8k", "wsc", "webnlg"])
def test_the_benchmark_configurations_have_the_papers_settings(suite: str) -> None:
    config = load_config(CONFIGS / "paper" / f"{suite}.yaml")
    optimizer = config.optimizer
    assert len(config.tasks) == {"bbh": 27, "mmlu": 57}.get(suite, 1)
    assert (optimizer.candidates, optimizer.num_steps(num_train=48)) == (8, 18)
    assert (optimizer.direction.form, optimizer.direction.trajectory.k, optimizer.direction.trajectory.by) == (
        "score",
        3,
        "relevance",
    )
    sizes = optimizer.schedule.build(18)
    assert [sizes(0), sizes(17)] == [50, 10]
    assert config.meta_prompt.exemplars == 3
    assert config.models.optimizer.sampling.temperature == 1.0
    assert config.models.task.sampling.temperature == 0.0
    for task in config.tasks:
        assert task.prompt == "Let's think step by step."
        assert task.answer.rounds == (1 if suite == "webnlg" else 2)
        assert task.answer.parser == "paper"


@pytest.mark.skipif(not SCHEMA.exists(), reason="there is no schema file; make schema writes it")
def test_the_schema_file_is_current() -> None:
    collect_leftovers()
    assert SCHEMA.read_text(encoding="utf-8") == schema(), "run: make schema"


def test_every_option_is_described() -> None:
    texts = [*option_texts(RunConfig), *option_texts(SweepSection)]
    assert not [path for path, text in texts if not text and not path.endswith(".kind")]
