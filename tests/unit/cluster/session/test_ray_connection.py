from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import ray
from ray import _raylet
from ray._private import services

from cluster.session import fork_server, ray_connection
from gpo.errors import ClusterError

_PYTHON_WORKERS = "--python_worker_command"


def _command(script: str) -> list[str]:
    """A raylet's command, as Ray writes it."""
    return [
        "raylet",
        "--session_dir=folder",
        "--node_id=1",
        f"{_PYTHON_WORKERS}={subprocess.list2cmdline(['python', '-s', script, '--a=1'])}",
        "--dashboard_agent_command=python dashboard",
        "--runtime_env_agent_command=python environments",
    ]


_COMMAND = _command("/ray/_private/workers/default_worker.py")


@pytest.fixture
def raylet(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Ray's function that starts a process. Nothing starts."""
    start = Mock()
    start.return_value.process.poll.return_value = None
    monkeypatch.setattr(services, "start_ray_process", start)
    monkeypatch.setattr(services, "__file__", "/ray/_private/services.py")
    monkeypatch.setattr(_raylet, "persist_port", Mock())
    monkeypatch.setattr(ray_connection, "ForkServer", Mock(side_effect=OSError("no server here")))
    return start


def _connect(monkeypatch: pytest.MonkeyPatch, init: Callable[[], object]) -> None:
    monkeypatch.setattr(ray, "init", lambda *_args, **_options: init())
    with ray_connection.ray_connection("local", cpus_needed=1):
        pass


def _start_raylet(command: Sequence[str] = _COMMAND) -> Any:
    return services.start_ray_process([*command], "raylet", fate_share=True)


def _words(raylet: Mock) -> dict[str, str]:
    """The words of the raylet that was started."""
    return dict(word.partition("=")[::2] for word in raylet.call_args.args[0])


def test_a_node_that_takes_its_time_is_waited_for(raylet: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    get_node = Mock(side_effect=[RuntimeError("not there yet"), RuntimeError("not there yet"), "the node"])
    monkeypatch.setattr(services, "get_node", get_node)
    with ray_connection._patient():
        _start_raylet()
        assert services.get_node("address", "id") == "the node"  # type: ignore[no-untyped-call]


def test_a_node_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "get_node", Mock(side_effect=RuntimeError("not there yet")))
    with ray_connection._patient(within_s=0), pytest.raises(RuntimeError, match="not there yet"):
        services.get_node("address", "id")  # type: ignore[no-untyped-call]


def test_a_node_whose_raylet_has_ended_is_not_waited_for(raylet: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "get_node", Mock(side_effect=RuntimeError("not there yet")))
    raylet.return_value.process.poll.return_value = 1

    def init() -> None:
        _start_raylet()
        services.get_node("address", "id")  # type: ignore[no-untyped-call]

    with pytest.raises(ClusterError, match=r"\(its raylet ended with exit code 1\)$"):
        _connect(monkeypatch, init)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "The current node timed out during startup. This\ncould happen",
            r"\(The current node timed out during startup\. This\)\. If the machine is busy .* again later$",
        ),
        ("Invalid value.\nMore", r"\(Invalid value\.\)$"),
        ("", r"\(ValueError\)$"),
    ],
)
def test_a_cluster_that_does_not_start_is_an_error_with_its_reason(
    message: str, shown: str, raylet: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match=f"^Ray did not start on this machine {shown}"):
        _connect(monkeypatch, Mock(side_effect=ValueError(message)))


@pytest.mark.parametrize("folder", ["/ray", "/a folder/ray"])
def test_the_script_of_a_worker_may_be_in_a_folder_with_a_space(
    folder: str, raylet: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Mock()
    monkeypatch.setattr(ray_connection, "ForkServer", Mock(return_value=server))
    monkeypatch.setattr(fork_server, "SCRIPT", Path("/my project/forked_worker.py"))
    monkeypatch.setattr(services, "__file__", f"{folder}/_private/services.py")
    _connect(monkeypatch, lambda: _start_raylet(_command(f"{folder}/_private/workers/default_worker.py")))
    words = shlex.split(_words(raylet)[_PYTHON_WORKERS])
    assert words == ["python", "-s", "/my project/forked_worker.py", "--a=1"]
    server.close.assert_called_once_with()


def test_without_a_fork_server_the_workers_start_as_usual(raylet: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    _connect(monkeypatch, _start_raylet)
    assert f"{_PYTHON_WORKERS}={_words(raylet)[_PYTHON_WORKERS]}" in _COMMAND
    assert fork_server.VARIABLE not in raylet.call_args.kwargs["env_updates"]


@pytest.mark.parametrize("variable", ["", "RAY_RUNTIME_ENV_HOOK", "RAY_JOB_CONFIG_JSON_ENV_VAR"])
def test_what_may_give_workers_a_runtime_environment_keeps_their_agent(
    variable: str, raylet: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "module.function")
    _connect(monkeypatch, _start_raylet)
    words = _words(raylet)
    assert words["--dashboard_agent_command"] == ray_connection._IDLE
    assert (words["--runtime_env_agent_command"] == "python environments") == bool(variable)


@pytest.mark.parametrize("missing", ["--session_dir", "--node_id", "persist_port"])
def test_with_another_version_of_ray_its_processes_start_as_usual(
    missing: str, raylet: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "persist_port":
        monkeypatch.delattr(_raylet, missing)
    command = [word for word in _COMMAND if not word.startswith(missing)]
    _connect(monkeypatch, lambda: _start_raylet(command))
    assert raylet.call_args.args[0] == command


def test_a_version_of_ray_without_the_functions_that_are_replaced_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_connection, "ForkServer", Mock(side_effect=OSError("no server here")))
    for name in ("start_ray_process", "get_node"):
        monkeypatch.delattr(services, name)
    init = Mock()
    _connect(monkeypatch, init)
    init.assert_called_once_with()
