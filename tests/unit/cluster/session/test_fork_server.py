from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.session.fork_server import SCRIPT, VARIABLE, ForkServer
from tests.conftest import Until

Start = Callable[..., dict[str, Any]]
_WORKER = """
import json, os, resource, sys
from pathlib import Path
seen = {"parent": os.getppid(), "group": os.getpgid(0), "pid": os.getpid(), "arguments": sys.argv[1:],
        "variable": os.environ["MINE"], "folder": os.getcwd(), "loaded": "colorsys" in sys.modules,
        "name": __name__, "path": sys.path[0], "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}
print("printed", flush=True)
Path("part").write_text(json.dumps(seen))
os.rename("part", "seen")
"""


@pytest.fixture
def server() -> Iterator[ForkServer]:
    started = ForkServer(["colorsys", "no_such_module"])
    yield started
    started.close()


@pytest.fixture
def start(server: ForkServer, tmp_path: Path, until: Until) -> Start:
    """Starts a worker as the raylet does; returns what it saw. ``env`` changes its variables."""
    script = tmp_path / "scripts" / "worker.py"
    script.parent.mkdir()
    script.write_text(_WORKER)

    def start(**env: str) -> dict[str, Any]:
        variables = {**os.environ, VARIABLE: server.variable(str(script)), "MINE": "x" * 100_000, **env}
        command = ["bash", "-c", f"ulimit -Sn 500; exec {sys.executable} {SCRIPT} --a 1"]
        with (tmp_path / "out").open("wb") as out:
            subprocess.run(command, cwd=tmp_path, env=variables, stdout=out, check=True, timeout=120)
        until((tmp_path / "seen").exists, "the worker ran")
        seen: dict[str, Any] = json.loads((tmp_path / "seen").read_text())
        (tmp_path / "seen").unlink()
        assert (tmp_path / "out").read_text() == "printed\n"
        assert (seen["arguments"], seen["variable"]) == (["--a", "1"], "x" * 100_000)
        assert (seen["name"], seen["path"]) == ("__main__", str(script.parent))
        assert (seen["folder"], seen["files"]) == (str(tmp_path), 500)
        return seen

    return start


def test_a_worker_is_forked_with_the_modules_and_runs_as_its_raylet_would_start_it(
    server: ForkServer, start: Start
) -> None:
    workers = [start(), start()]
    assert [worker["loaded"] for worker in workers] == [True, True]
    assert [worker["parent"] for worker in workers] == [server.process.pid] * 2
    assert [worker["group"] for worker in workers] == [worker["pid"] for worker in workers]


def test_a_worker_starts_without_the_server_and_with_other_modules(server: ForkServer, start: Start) -> None:
    assert not start(PYTHONPATH="/elsewhere")["loaded"]
    server.close()
    assert not start()["loaded"]


def test_the_server_ends_with_the_process_that_started_it(until: Until) -> None:
    code = "from cluster.session.fork_server import ForkServer; print(ForkServer([]).process.pid)"
    pid = int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=120).stdout)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the server ends")


def test_the_server_loads_what_workers_need_but_not_ray_and_has_one_thread() -> None:
    code = (
        "import os, sys\n"
        "from cluster.session.fork_server import MODULES, load\n"
        "load(MODULES)\n"
        "print([name for name in MODULES if name not in sys.modules], 'ray' in sys.modules,\n"
        "      len(os.listdir('/proc/self/task')))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert found.stdout == "[] False 1\n", found.stderr
