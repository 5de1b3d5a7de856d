"""Connecting to Ray: a new cluster on this machine, or an existing one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Any, ParamSpec

import ray
from ray import _raylet
from ray._private import services
from ray._private.node import Node

from cluster.display import logs
from cluster.session import fork_server
from cluster.session.fork_server import ForkServer
from cluster.session.ray_environment import is_private
from gpo.errors import ClusterError, ConfigError
from gpo.runtime.process import usable_cores
from gpo.text import first_line

log = logging.getLogger(__name__)

EMBEDDED_CPUS = 1.0
"""CPUs that Ray reserves for an embedded model's server."""
_QUIET = ("ray", "ray.serve", "ray._private.worker")
_IDLE = "sh -c \"trap '' INT; exec cat\""
"""Stands in for an agent of a raylet. It lives as long as the raylet, whose end closes the pipe that it reads. Ctrl-C
reaches it, too, and must not end it: the raylet ends with its agents."""
_NO_PORT = -1
"""What an agent that listens nowhere reports as its port."""
_START_S = 180.0
"""How long the processes of a new cluster may take to start."""
_TIMED_OUT = "timed out during startup"
"""Part of Ray's message if they take longer."""
_ENVIRONMENT_VARIABLES = ("RAY_RUNTIME_ENV_HOOK", "RAY_JOB_CONFIG_JSON_ENV_VAR")
"""Each can give the workers a runtime environment."""


_P = ParamSpec("_P")
_Function = Callable[..., Any]
_thread = ThreadPoolExecutor(1, "ray")
_connecting = threading.Lock()
_resources = ExitStack()
"""What ends with the connection."""
_users: list[str] = []
"""The addresses that this process's sessions connected with. They share a connection, and the last one closes it."""


def connected_address() -> str:
    """The address that joins the connection that this process has."""
    return _users[0] if _users else "auto"


@contextmanager
def ray_connection(address: str, *, cpus_needed: float) -> Iterator[None]:
    """Connect to Ray, and disconnect at the end, which also ends a local cluster.

    A process has one connection. Sessions in several threads share it, and that of a program which called ``ray.init``
    itself stays open.

    Args:
        address: ``local`` starts a cluster on this machine; ``auto`` finds a running one; or ``HOST:PORT``.
        cpus_needed: CPUs that the actors reserve. A local cluster declares at least as many: the actors mostly wait
            for models, and must not wait for each other.

    Raises:
        ClusterError: no cluster starts on this machine.
        ConfigError: no cluster answers at the address, or this process is connected to another one.
    """
    with _connecting:
        is_ours = bool(_users) or not ray.is_initialized()
        if ray.is_initialized():
            require_here(address)
        else:
            _lasting(_open, address, cpus_needed)
        if is_ours:
            _users.append(address)
    try:
        yield
    finally:
        with _connecting:
            if is_ours:
                _users.remove(address)
                if not _users:
                    _lasting(_close)


def require_here(address: str) -> None:
    """Check that an address is that of the cluster that this process is connected to.

    Raises:
        ConfigError: it is not.
    """
    gcs = str(ray.get_runtime_context().gcs_address)
    if address not in (connected_address(), gcs):
        raise ConfigError(
            "--address",
            f"{address!r} is not where this process is connected to Ray already ({gcs})",
            "leave the address out, or start the run in another process",
        )


def _lasting(action: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
    """Call a function in a thread that lasts until the program ends.

    Linux ends Ray's processes with the thread that started them, and other sessions may still use them then.
    """
    if threading.current_thread() is threading.main_thread():
        action(*args, **kwargs)
    else:
        _thread.submit(action, *args, **kwargs).result()


def _open(address: str, cpus_needed: float) -> None:
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with _sigterm_kept():
            _connect(address, cpus_needed)
    except BaseException:  # such as Ctrl-C while Ray starts
        _close()
        raise


def _close() -> None:
    with _resources:
        ray.shutdown()


def _connect(address: str, cpus_needed: float) -> None:
    environment = logs.chosen().for_workers() or None
    if address == "local":
        has_environments = (
            environment is not None or not is_private() or any(map(os.environ.get, _ENVIRONMENT_VARIABLES))
        )
        try:
            with _without_unused_processes(runtime_environments=has_environments), _workers_forked(), _patient():
                ray.init(
                    "local",
                    num_cpus=max(usable_cores(), ceil(cpus_needed)),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env=environment,
                )
        except Exception as error:  # Ray has no class for it
            problem = f"Ray did not start on this machine ({first_line(error)})"
            if _TIMED_OUT in str(error):
                problem += ". If the machine is busy or short of memory, run the command again later"
            raise ClusterError(problem) from error
        return
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            "--address",
            f"no Ray cluster answers at {address!r} ({first_line(error)})",
            "start one with 'ray start --head', or leave the option out",
        ) from None


@contextmanager
def _without_unused_processes(*, runtime_environments: bool) -> Iterator[None]:
    """Let a new cluster start without Python processes that nothing here uses.

    Those are the autoscaler, the dashboard's server, the copying of logs to the driver, and the agents of the dashboard
    and of runtime environments. Each takes a second of CPU time to start, and the raylet waits for its agents. Ray's
    options do not turn them off; a version of Ray in which they are started otherwise starts them.

    Args:
        runtime_environments: whether a worker may have one. The raylet ends if it needs their agent and has none.
    """
    idle = {"--dashboard_agent_command": _IDLE}
    persist_port = getattr(_raylet, "persist_port", None)
    no_ports = ["metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"]
    if not runtime_environments:
        idle["--runtime_env_agent_command"] = _IDLE
        no_ports.append("runtime_env_agent_port")

    def change(command: list[str], variables: dict[str, str]) -> list[str]:
        words = dict(word.partition("=")[::2] for word in command)
        folder, node = words.get("--session_dir"), words.get("--node_id")
        if persist_port is None or folder is None or node is None:
            return command
        for name in no_ports:
            persist_port(folder, node, name, _NO_PORT)
        variables["RAY_enable_pipe_based_agent_to_parent_health_check"] = "1"
        return [f"{name}={idle[name]}" if (name := word.partition("=")[0]) in idle else word for word in command]

    with ExitStack() as stack:
        for name in ("start_monitor", "start_api_server", "start_log_monitor"):
            stack.enter_context(_replaced(Node, name, lambda _: lambda *_args, **_options: None))
        stack.enter_context(_raylet_changed(change))
        yield


@contextmanager
def _workers_forked() -> Iterator[None]:
    """Let a new raylet start its workers with the script that asks a fork server, if there can be one.

    The server ends with the connection.
    """
    try:
        server = ForkServer()
    except OSError as error:
        log.debug("The cluster's workers start without a fork server: %s", error)
        yield
        return
    _resources.callback(server.close)
    script = str(Path(services.__file__).with_name("workers") / "default_worker.py")
    # Quoted as Ray quotes it.
    rays_word, our_word = (subprocess.list2cmdline([path]) for path in (script, str(fork_server.SCRIPT)))

    def change(command: list[str], variables: dict[str, str]) -> list[str]:
        variables[fork_server.VARIABLE] = server.variable(script)
        start = "--python_worker_command="
        return [word.replace(rays_word, our_word) if word.startswith(start) else word for word in command]

    with _raylet_changed(change):
        yield


@contextmanager
def _raylet_changed(
    change: Callable[[list[str], dict[str, str]], list[str]] = lambda command, _: command,
    started: Callable[[Any], object] = lambda _: None,
) -> Iterator[None]:
    """Change the command of a raylet that starts now.

    Args:
        change: receives the command, and additional environment variables, to which it can add; returns the command.
        started: receives the process.
    """

    def changed(start: _Function) -> _Function:
        def start_process(command: list[str], process_type: str, *args: Any, **options: Any) -> Any:
            if process_type != "raylet":
                return start(command, process_type, *args, **options)
            options["env_updates"] = dict(options.get("env_updates") or {})
            raylet = start(change(command, options["env_updates"]), process_type, *args, **options)
            started(raylet.process)
            return raylet

        return start_process

    with _replaced(services, "start_ray_process", changed):
        yield


@contextmanager
def _patient(within_s: float = _START_S) -> Iterator[None]:
    """Let Ray wait for a new node until ``within_s`` seconds have passed or its raylet has ended.

    Ray itself asks for the node for 30 s, which a busy machine can exceed, and has no option for it.
    """
    raylets: list[Any] = []

    def patient(get_node: _Function) -> _Function:
        def ask(*args: Any, **options: Any) -> Any:
            end = time.monotonic() + within_s
            while True:
                try:
                    return get_node(*args, **options)
                except RuntimeError:  # not there yet
                    for raylet in raylets:
                        if (code := raylet.poll()) is not None:
                            raise ClusterError(f"its raylet ended with exit code {code}") from None
                    if time.monotonic() >= end:
                        raise
                    time.sleep(0.1)

        return ask

    with _raylet_changed(started=raylets.append), _replaced(services, "get_node", patient):
        yield


@contextmanager
def _replaced(owner: object, name: str, changed: Callable[[_Function], _Function]) -> Iterator[None]:
    """Change one of Ray's functions for now. A version of Ray without it stays as it is."""
    function = getattr(owner, name, None)
    if function is None:
        yield
        return
    setattr(owner, name, changed(function))
    try:
        yield
    finally:
        setattr(owner, name, function)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep our SIGTERM handler: Ray's own handler ends the process at once, without saving anything."""
    if threading.current_thread() is not threading.main_thread():  # Ray sets none here
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, before)


def cpus_missing(needed: float) -> float:
    """CPUs that the cluster has too few; 0 where it has enough."""
    total: float = ray.cluster_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
    return max(0.0, needed - total)


def distinct_hosts() -> int:
    """Number of machines in the cluster."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return len({node["NodeManagerAddress"] for node in nodes if node["Alive"]})
