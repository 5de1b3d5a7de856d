from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from cluster.display import logs
from cluster.session.ray_connection import ray_connection
from gpo.errors import ConfigError
from tests.conftest import Until
from tests.ray.conftest import Pids

_UNUSED = (b"dashboard/", b"log_monitor.py", b"_private/monitor.py", b"runtime_env/agent")
_LOGS_JSON = logs.Logs(format=logs.Format.JSON)


@ray.remote(num_cpus=0)
def _variable(name: str) -> str | None:
    return os.environ.get(name)


@ray.remote(num_cpus=0)
def _is_loaded(module: str) -> bool:
    return module in sys.modules


def _programs(pids: Pids) -> list[bytes]:
    """The first words of each process of the cluster: its program, and the script of a Python process."""
    commands = []
    for pid in pids(""):
        with suppress(OSError):
            commands.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return [b" ".join(command.split(b"\0")[:3]).strip() for command in commands]


def test_a_cluster_runs_no_unused_process_and_after_its_end_a_request_starts_no_other(pids: Pids, until: Until) -> None:
    with ray_connection("local", cpus_needed=1):
        assert ray.get(_variable.remote("GPO_LOGS")) is None
        assert ray.get(_is_loaded.remote("gpo.models.openai"))  # the worker was forked
        assert not [program for program in _programs(pids) if any(name in program for name in _UNUSED)]
        idle = pids("cat")
        for pid in idle:  # as Ctrl-C in a terminal does
            os.kill(pid, signal.SIGINT)
        assert ray.get(_variable.remote("GPO_LOGS")) is None
        assert pids("cat") == idle != []
    until(lambda: not pids("cat"), "what stands in for an agent ends with the raylet")
    for ask in (ray.nodes, lambda: ray.put(1), lambda: ray.get_actor("exporter")):
        with pytest.raises((ray.exceptions.RaySystemError, ConnectionError, AssertionError)):
            ask()
        assert not ray.is_initialized()


def test_a_runtime_environment_has_its_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_chosen", _LOGS_JSON)
    with ray_connection("local", cpus_needed=1):
        assert ray.get(_variable.remote("GPO_LOGS")) is not None


def test_sessions_of_several_threads_share_a_connection_until_the_last_has_ended() -> None:
    joined, ended = threading.Event(), threading.Event()

    def first() -> None:
        with ray_connection("local", cpus_needed=1):
            assert joined.wait(60)
        ended.set()

    thread = threading.Thread(target=first)
    thread.start()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_while_another_ends, joined, ended, thread).result()
    assert not ray.is_initialized()


def _while_another_ends(joined: threading.Event, ended: threading.Event, thread: threading.Thread) -> None:
    while not ray.is_initialized():
        time.sleep(0.01)
    with ray_connection("local", cpus_needed=1):
        joined.set()
        assert ended.wait(60)
        thread.join()
        time.sleep(0.5)  # Linux would have ended Ray's processes with the thread that started them
        assert ray.get(ray.put(1)) == 1
        assert ray.nodes()[0]["Alive"]
        with pytest.raises(ConfigError, match="is connected to Ray already"), ray_connection("auto", cpus_needed=1):
            pass


def test_the_connection_of_the_program_itself_stays_open() -> None:
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        for address in ("auto", ray.get_runtime_context().gcs_address):
            with ray_connection(address, cpus_needed=1):
                pass
            assert ray.is_initialized()
        with pytest.raises(ConfigError, match="--address"), ray_connection("local", cpus_needed=1):
            pass
    finally:
        ray.shutdown()
