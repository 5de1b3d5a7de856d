"""``gpo --help`` answers at once, and Ray reads its environment only after ``prepare_environment`` has set it."""

from __future__ import annotations

import subprocess
import sys

_HEAVY = {"ray", "optuna", "openai", "pydantic", "fastapi"}
_BEFORE_RAY = (
    "cluster.config, cluster.session.models, cluster.session.preflight, cluster.sweep.config, cluster.runs.run_folder"
)
_WITHOUT_A_CALL = (
    "cluster.session.models, cluster.evaluating.evaluate, cluster.evaluating.plan, cluster.proposing.configuration"
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
    assert not {"openai", "ray", "numpy", "rapidfuzz"} & imported(_WITHOUT_A_CALL)
    assert not {"openai", "numpy", "jinja2"} & imported("actors.limiter")
    assert "ray" not in imported(f"{_BEFORE_RAY}, cluster.submitting.jobs, cluster.submitting.kubernetes")
