"""The strategies that the how-to page shows: planned, tested with the contract tests, and used by a search."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.simulated.models import SimulatedModel
from cluster.config.loading import load_config
from cluster.runs.searches import build_gpo
from cluster.session.models import SampledModel, build_tasks
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.models.protocol import Sampling
from gpo.scoring.candidates import FullScoring
from gpo.scoring.racing import Racing
from gpo.testing.fakes import WordEmbedder
from gpo.trajectory import Trajectory
from tests.commands import gpo_in_this_process
from tests.pages import commands, files
from tests.paths import ROOT

PAGE = "docs/how-to/own-strategies.md"
MODELS = {"OPENAI_API_KEY": "a-key", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page, and some data."""
    for name, content in files(PAGE).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    for split in ("train", "val", "test"):
        source = ROOT / "configs/quickstart/sentiment" / f"{split}.jsonl"
        (tmp_path / f"{split}.jsonl").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_the_strategies_of_the_page_are_planned(folder: Path) -> None:
    (command,) = commands(PAGE, "gpo")
    done = gpo_in_this_process(*shlex.split(command)[1:], cwd=folder, env=MODELS)
    assert done.code == 0, done.stderr
    assert "evaluation.scoring is your own" in done.stdout


def test_the_strategies_of_the_page_pass_their_contract_tests(folder: Path) -> None:
    (command,) = commands(PAGE, "python")
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


async def test_a_search_uses_the_strategies_of_the_page_even_after_it_was_pickled_and_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in MODELS.items():
        monkeypatch.setenv(name, value)
    config = load_config(folder / "own.yaml", ["optimizer.steps=6", "optimizer.candidates=4", "evaluation.val_size=30"])
    (task,) = build_tasks(config)
    model = SimulatedModel()
    evaluator = LocalEvaluator(task, model, Sampling(temperature=0), RuleGrader(task.scorer))
    gpo = build_gpo(config, task, 0, evaluator, SampledModel(model, Sampling(temperature=1.0)), WordEmbedder())
    saved: list[Trajectory] = [await gpo.start(task.initial)]
    saved += [one async for one in gpo.run(saved[0])]
    last = saved[-1]

    assert [step.step_size for step in last.steps] == [40, 40, 20, 10, 10, 5]
    for number, step in enumerate(last.steps):
        before = last.currents[number]
        assert len(step.direction.neighbours) <= 4
        lengths = [len(one.prompt.words) for one in step.direction.neighbours]
        assert lengths == sorted(lengths, reverse=True)
        assert step.successor == before or step.successor.score.mean > before.score.mean + 0.02
    by_steps = {len(one.steps): type(gpo.scoring.step(one).own) for one in saved}  # type: ignore[attr-defined]
    assert list(by_steps.values()) == [Racing] * 4 + [FullScoring] * 3
    instruction = gpo.proposer.meta_prompt.refinement.instruction("", 5)  # type: ignore[attr-defined]
    assert "at most 30 words. Change at most 5 words." in instruction

    middle = next(one for one in saved if len(one.steps) == 3)
    again = pickle.loads(pickle.dumps(gpo))  # noqa: S301
    resumed = [one async for one in again.run(middle)]
    assert resumed[-1] == last
