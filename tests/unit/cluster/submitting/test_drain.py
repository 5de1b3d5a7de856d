from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.submitting.drain import drain, drivers, nodes

_SAVES = """
import signal, sys
def save(*_):
    print("saved", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("at work", flush=True)
signal.pause()
"""
_DEAF = 'import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print("at work", flush=True); signal.pause()'

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts what looks like a driver, and enters it into a folder that looks like /proc."""
    running = []

    def begin(
        program: str, *, of_a_job: bool = True, module: str = "cluster.cli", command: bytes = b""
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        folder = tmp_path / str(process.pid)
        folder.mkdir()
        (folder / "cmdline").write_bytes(f"python\0-m\0{module}\0run\0a.yaml\0".encode())
        (folder / "environ").write_bytes(b"A=b\0RAY_JOB_CONFIG_JSON_ENV_VAR={}\0" if of_a_job else b"A=b\0")
        if command:
            (folder / "cmdline").write_bytes(command)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_only_the_drivers_of_jobs_are_stopped(start: Start, tmp_path: Path) -> None:
    driver, by_hand, other = start(_SAVES), start(_SAVES, of_a_job=False), start(_SAVES, module="http.server")
    assert drivers(tmp_path) == [driver.pid]
    drain(0.0, tmp_path)
    assert driver.communicate(timeout=30)[0] == "saved\n"
    assert driver.returncode == 1
    assert by_hand.poll() is None
    assert other.poll() is None


def test_it_waits_for_drivers_that_save_but_not_forever(start: Start, tmp_path: Path) -> None:
    deaf = start(_DEAF)
    assert drain(0.3, tmp_path) == [deaf.pid]
    os.kill(deaf.pid, 9)
    (tmp_path / str(deaf.pid) / "cmdline").unlink()
    assert drain(60.0, tmp_path) == []


def test_a_node_is_the_process_of_ray_start_and_not_its_shell(start: Start, tmp_path: Path) -> None:
    node = start(_SAVES, command=b"/opt/venv/bin/python\0/opt/venv/bin/ray\0start\0--head\0--block\0")
    start(_SAVES, command=b"/bin/bash\0-c\0--\0ulimit -n 65536; ray start --head --block\0")
    start(_SAVES, command=b"/opt/venv/bin/python\0/opt/venv/bin/ray\0job\0submit\0start\0")
    start(_SAVES)
    assert nodes(tmp_path) == [node.pid]


def test_the_real_proc_file_system_can_be_read() -> None:
    assert os.getpid() not in drivers()
