"""Runs scripts that need other optimizers, which ``make bench-peers`` installs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.paths import ROOT

_PEERS = ROOT / ".venv-peers" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def is_missing(package: str) -> bool:
    """Whether a package is installed neither here nor in ``.venv-peers``."""
    return find_spec(package) is None and not (_PEERS / package).exists()


def result_of(script: Path, folder: Path) -> Any:
    """Run a script with a folder and the path of the peers; returns the JSON in the last line of its output."""
    done = subprocess.run(
        [sys.executable, script, folder, _PEERS],
        env={"PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
