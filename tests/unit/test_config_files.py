"""The configurations that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.build import build_tasks
from cluster.config import load_config
from cluster.config.data import FilesConfig
from cluster.config.schema import schema

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SCHEMA = CONFIGS / "schema.json"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def test_the_quickstart_is_there() -> None:
    assert CONFIGS / "quickstart.yaml" in FILES


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(CONFIGS)) for path in FILES])
def test_every_configuration_loads_and_finds_the_data_that_the_project_has(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    config = load_config(path)
    data = [task.data for task in config.tasks]
    # A benchmark's folder is the user's own.
    if all(isinstance(one, FilesConfig) for one in data):
        assert len(build_tasks(config)) == len(data)


@pytest.mark.skipif(not SCHEMA.exists(), reason="there is no schema file; make schema writes it")
def test_the_schema_file_is_that_of_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema(), "run: make schema"
