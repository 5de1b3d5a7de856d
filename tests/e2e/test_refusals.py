"""A mistake, as a user's shell sees it; ``tests/unit/cluster/cli`` has all of them, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.configs import CHECKED

if TYPE_CHECKING:
    from tests.commands import Gpo
    from tests.configs import WriteConfig


def test_a_mistake_ends_the_command_with_one_line_and_code_2(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, folder: Path
) -> None:
    endpoint.behaviour = Behaviour(api_key="canary-3c9be0")
    env = {"OPENAI_API_KEY": "canary-of-another", "RAY_TMPDIR": str(folder / "ray")}
    finished = gpo("run", write_config(folder, endpoint.base_url, models=CHECKED), cwd=folder, env=env)
    assert (finished.code, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    words = ("models.task.api_key_env", "HTTP 401", "OPENAI_API_KEY", "set a key")
    assert not [word for word in words if word not in line], line
    assert "canary" not in line
    assert not (folder / "ray").exists()
