from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.session import forked_worker
from cluster.session.fork_server import SCRIPT, VARIABLE, ForkServer
from tests.conftest import Until

Start = Callable[..., dict[str, Any]]
_WORKER = """
import json, os, resource, sys
from pathlib import Path
seen = {"parent": os.getppid(), "group": os.getpgid(0), "pid": os.getpid(), "arguments": sys.argv[1:],
        "variable": os.environ["MINE"], "folder": os.getcwd(), "loaded": "colorsys" in sys.modules,
        "name": __name__, "path": sys.path[0], "python": sys.executable, "no_user_site": sys.flags.no_user_site,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}
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

    def start(python: str = sys.executable, **env: str) -> dict[str, Any]:
        variables = {**os.environ, VARIABLE: server.variable(str(script)), "MINE": "x" * 100_000, **env}
        command = ["bash", "-c", f"ulimit -Sn 500; exec {python} {SCRIPT} --a 1"]
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


def test_a_worker_without_the_server_has_its_own_python_with_its_options(start: Start, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    for python, options in ((str(other), ""), (sys.executable, " -s")):
        worker = start(python + options)
        assert (worker["loaded"], worker["python"]) == (False, python)
        assert worker["no_user_site"] == int(bool(options))


def test_a_process_with_many_open_files_can_start_a_server(until: Until) -> None:
    code = (
        "import os, resource, sys\n"
        "from cluster.session.fork_server import ForkServer\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]\n"
        "server = ForkServer([])\n"
        "print(server.variable('missing.py'), server.process.pid, sep='\\n', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path, pid = json.loads(process.stdout.readline())[0], int(process.stdout.readline())
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""  # the server has taken the request, or has ended
        assert Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
        process.communicate("")
    until(lambda: not Path(f"/proc/{pid}").exists(), "the server ends")


def test_only_this_user_can_open_the_folder_of_the_socket_which_ends_with_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    server = ForkServer([])
    path = Path(json.loads(server.variable("script.py"))[0])
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    server.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["missing", "long" * 30])
def test_where_no_socket_can_be_there_is_no_server(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / folder))
    if folder != "missing":
        (tmp_path / folder).mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - of several kinds
        ForkServer([])
    assert not list(tmp_path.glob("*/*"))


def test_a_system_that_does_not_tell_who_connects_has_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED")
    with pytest.raises(OSError, match="only Linux"):
        ForkServer([])


def _connection(server: ForkServer) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(json.loads(server.variable(""))[0])
    return connection


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bytes]:
    """Waits for the end of the worker that a script of this process asks for; returns what the worker printed."""
    reading, writing = os.pipe()
    send = socket.send_fds
    monkeypatch.setattr(socket, "send_fds", lambda to, data, _files: send(to, data, [reading, writing, writing]))

    def wait() -> bytes:
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            return file.read()

    return wait


def test_silent_and_broken_clients_do_not_end_the_server(server: ForkServer, start: Start) -> None:
    with _connection(server), _connection(server) as broken, _connection(server) as partial:
        broken.sendall(b"no JSON")
        broken.shutdown(socket.SHUT_WR)
        assert broken.recv(1) == b""  # an end without a reply: the script becomes the worker
        partial.sendall(b'{"script": ')
        _connection(server).close()
        assert start()["parent"] == server.process.pid


def test_a_script_that_was_killed_gets_no_worker(
    server: ForkServer, start: Start, tmp_path: Path, printed: Callable[[], bytes]
) -> None:
    worker = {"script": str(tmp_path / "scripts" / "worker.py"), "arguments": [], "environ": {"MINE": ""}}
    settings = {"folder": str(tmp_path), "open_files": [500, 500], "oom_score_adj": "0"}
    with _connection(server) as connection:
        connection.shutdown(socket.SHUT_RD)
        socket.send_fds(connection, [json.dumps({**worker, **settings}).encode()], [])
    assert printed() == b""
    assert not (tmp_path / "seen").exists()
    assert start()["parent"] == server.process.pid


def test_a_script_does_not_wait_for_a_stopped_server_which_forks_no_second_worker_later(
    server: ForkServer, start: Start, tmp_path: Path, printed: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()  # the server is ready
    monkeypatch.setattr(forked_worker, "WITHIN_S", 0.05)
    monkeypatch.setenv("MINE", "")
    monkeypatch.chdir(tmp_path)
    server.process.send_signal(signal.SIGSTOP)
    path = json.loads(server.variable(""))[0]
    assert not forked_worker._is_forked(path, str(tmp_path / "scripts" / "worker.py"))
    server.process.send_signal(signal.SIGCONT)
    assert printed() == b""
    assert not (tmp_path / "seen").exists()


def test_a_script_whose_folder_was_removed_asks_for_no_fork(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", missing)
    assert not forked_worker._is_forked(json.loads(server.variable(""))[0], "script.py")


def test_the_server_loads_numpy_with_one_thread_whatever_the_workers_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    server = ForkServer([])
    variables = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
    server.close()
    assert {b"OMP_NUM_THREADS=1", b"OPENBLAS_NUM_THREADS=1"} <= set(variables)


def test_the_server_and_its_folder_end_with_the_process_that_started_it(until: Until, tmp_path: Path) -> None:
    code = "from cluster.session.fork_server import ForkServer; print(ForkServer([]).process.pid)"
    env = {**os.environ, "RAY_TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    pid = int(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, timeout=120).stdout)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the server ends")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_removed_by_the_next_server_if_the_process_and_its_server_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    code = (
        "import os, signal; from cluster.session.fork_server import ForkServer; server = ForkServer([])\n"
        "server.process.kill(); server.process.wait(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert len(list(tmp_path.iterdir())) == 1
    ForkServer([]).close()
    assert not list(tmp_path.iterdir())


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
