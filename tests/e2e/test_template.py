"""The example of a template, on the embedded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpo.evaluation.prompt_template import template_problem
from gpo.prompt import Prompt
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.commands import Gpo


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_template_with_two_placeholders_and_a_system_message_improves(gpo: Gpo, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    cache = f"cache.path={tmp_path / 'completions.sqlite'}"

    done = gpo("run", "configs/template.yaml", "--run-dir", "run", "--set", cache, cwd=tmp_path, timeout_s=900)

    assert done.code == 0, done.stderr
    (trajectory,) = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["trajectories"]
    initial, best = trajectory["initial"], trajectory["best"]
    assert best["test"] > initial["test"] + 0.1
    assert template_problem(Prompt(initial["prompt"]), Prompt(best["prompt"])) is None
