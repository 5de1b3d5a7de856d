"""The README's Python example, as a script and as a notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import gpo
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.e2e.test_readme import MODELS, write_table
from tests.paths import ROOT

(EXAMPLE,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
EMBEDDED = re.sub(
    r"task_model=.*\n    optimizer_model=.*\n",
    'task_model={"kind": "embedded", "sampling": {"max_tokens": 8}},\n'
    '    optimizer_model={"kind": "embedded", "sampling": {"max_tokens": 40}}, steps=1, optimizer={"candidates": 3},\n',
    EXAMPLE,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the README's table, as the working directory; modules of this checkout, and a cache of its own."""
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))
    return tmp_path


def script(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=280)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_example_is_a_script_and_a_notebook_with_an_endpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SimulatedEndpoint(Behaviour(api_key="a-key", models=MODELS)) as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", "a-key")
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
        printed = script(EXAMPLE)
        run = gpo.Run.open("runs/reviews")
        assert run.status == "completed"
        assert printed.split() == f"{run.best.prompt} {run.best.test}".split()

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (EXAMPLE, "run")])
        calls = len(endpoint.requests)
        NotebookClient(notebook, timeout=280).execute()
        shown = [output for cell in notebook.cells for output in cell.outputs]
        assert printed in [output.get("text") for output in shown]
        assert "<table>" in shown[-1]["data"]["text/html"]
        assert len(endpoint.requests) == calls  # the run in the folder is complete

        other = notebook.cells[0]["source"].replace("runs/reviews", "runs/notebook")
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(other)])
        NotebookClient(notebook, timeout=280).execute()
        (progress,) = (output for output in notebook.cells[0].outputs if output.output_type == "display_data")
        assert '<progress value="1.000"' in progress["data"]["text/html"]


@pytest.mark.slow
def test_the_example_works_with_the_embedded_model(folder: Path) -> None:
    script(EMBEDDED)
    run = gpo.Run.open("runs/reviews")
    assert run.status == "completed"
    assert run.best.test is not None
