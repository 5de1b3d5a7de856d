"""``gpo --help`` answers at once, and Ray reads its environment only after ``prepare_environment`` has set it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_HEAVY = {"ray", "optuna", "openai", "pydantic", "fastapi"}
_BEFORE_RAY = (
    "cluster.config, cluster.session.models, cluster.session.preflight, cluster.sweep.config, cluster.runs.run_folder"
)
_WITHOUT_A_CALL = (
    "gpo.models.openai, cluster.session.models, cluster.session.preflight, cluster.runs.opening, "
    "cluster.evaluating.evaluate, cluster.evaluating.plan, cluster.proposing.configuration"
)
_SHOW = 'import sys; print(*sorted(name for name in sys.modules if "." not in name))'


def test_help_imports_nothing_heavy_and_checks_do_not_import_ray() -> None:
    def imported(modules: str) -> set[str]:
        command = [sys.executable, "-c", f"import {modules}; {_SHOW}"]
        return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split())

    assert not _HEAVY & imported("cluster.cli")
    # Importing openai takes a second, in each process of a run, and NumPy a tenth.
    assert not {"openai", "ray", "numpy", "rapidfuzz"} & imported("cluster.config")
    # `gpo plan` and `gpo init` call no model; `gpo evaluate` needs no NumPy.
    assert not {"openai", "ray", "numpy"} & imported(_WITHOUT_A_CALL)
    assert not {"openai", "numpy", "jinja2"} & imported("actors.limiter")
    assert "ray" not in imported(f"{_BEFORE_RAY}, cluster.submitting.jobs, cluster.submitting.kubernetes")


def test_an_endpoint_loads_its_client_where_it_is_unpickled_and_not_where_it_is_created() -> None:
    code = (
        "import pickle, sys\n"
        "from gpo.models.endpoint import Endpoint\n"
        "from gpo.models.openai import OpenAIModel\n"
        "pickled = pickle.dumps(OpenAIModel(Endpoint('http://127.0.0.1:9/v1', 'model')))\n"
        "print('openai' in sys.modules)\n"
        "pickle.loads(pickled)\n"
        "print('openai' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout.split() == ["False", "True"], found.stderr


def test_a_command_imports_without_looking_for_garbage() -> None:
    code = (
        "import gc\n"
        "from gpo.runtime.preloading import preload\n"
        "def collections(): return sum(generation['collections'] for generation in gc.get_stats())\n"
        "before = collections()\n"
        "preload('cluster.evaluating.evaluate', 'gpo.models.client')\n"
        "print(collections() - before, gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout.split() == ["0", "True", "True"], found.stderr


def test_an_evaluation_of_a_function_does_not_import_the_client_of_endpoints(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def ask(messages): return 'yes'\n")
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"input": split, "target": "yes"}) + "\n")
    config = {
        "run": {"name": "own"},
        "models": {role: {"kind": "function", "function": "own:ask"} for role in ("task", "optimizer")},
        "tasks": [
            {
                "name": "desk",
                "data": {split: f"{split}.jsonl" for split in ("train", "val", "test")},
                "prompt": "Yes or no?",
                "answer": {"kind": "exact"},
            }
        ],
    }
    (tmp_path / "own.yaml").write_text(json.dumps(config))
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('openai' in sys.modules))\n"
        f"sys.argv = ['gpo', 'evaluate', {str(tmp_path / 'own.yaml')!r}]\n"
        "from cluster.cli import main\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == "False"
