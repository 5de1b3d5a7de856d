"""The bridge to DSPy, with the real package: it is in an environment of its own (``make bench-peers``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import load_config
from cluster.config.loading import validate_section
from cluster.config.section import AllowedPaths
from cluster.config.tasks import TaskConfig
from gpo.errors import ConfigError
from tests.configs import WriteConfig, triage_task
from tests.peers import is_missing, result_of


@pytest.mark.skipif(is_missing("dspy"), reason="DSPy is not installed")
def test_a_dspy_program_is_optimized_and_its_result_is_loaded_by_dspy(tmp_path: Path) -> None:
    found = result_of(Path(__file__).with_name("dspy_run.py"), tmp_path)

    code, shown, num_requests = found["evaluated"]
    assert (code, num_requests) == (0, 2 * 20), shown  # two predictors, 20 examples
    assert found["most_often"] == 1  # the cache of the run
    assert list(found["best"]) == ["draft", "check"]
    assert found["loaded"] == [found["best"], {"draft": "Guess.", "check": "Decide."}]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ({"dspy": "json:dumps"}, "is a function, not an object of a class of dspy.Module"),
        ({"dspy": "missing_module:program"}, "there is no module 'missing_module'"),
        ({"dspy": "json:dumps", "surprise": 1}, "surprise"),
    ],
)
def test_programs_that_are_none(program: dict[str, Any], words: str, write_config: WriteConfig, tmp_path: Path) -> None:
    task = {"position": "program", "prompt": None, "program": program}
    with pytest.raises(ConfigError, match="program") as refused:
        load_config(write_config(tmp_path, "http://127.0.0.1:9/v1", tasks=[task]))
    assert words in str(refused.value)


def test_a_program_of_a_posted_configuration_is_not_imported_before_its_place_is_checked(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    program = {"dspy": "evil:program", "folder": str(tmp_path)}
    raw = {**triage_task(), "position": "program", "prompt": None, "program": program}

    with pytest.raises(ConfigError) as refused:
        validate_section(TaskConfig, raw, tmp_path, AllowedPaths(None, frozenset()))
    assert "imported" not in str(refused.value)
    with pytest.raises(ConfigError, match="imported"):
        validate_section(TaskConfig, raw, tmp_path)
