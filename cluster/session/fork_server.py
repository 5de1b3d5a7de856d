"""A process that has loaded what Ray's workers need, and forks each worker.

A worker spends most of its start with imports. Forked workers share them: the imports happen once, and their memory
counts once. The raylet starts ``forked_worker.py`` for each worker. That script hands its arguments, environment and
files over to a fork of the server. Where that fails, the script continues as the worker itself.

The fork reads the request, so that no request can stop the server. It prepares everything and then replies. The reply
decides: if the script can no longer receive it, the fork ends.

Ray is not among the modules: it reads variables of the single worker while it is loaded. The server has one thread and
no connection when it forks.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.session.forked_worker import WITHIN_S, is_own_user
from gpo.runtime.preloading import collector_off
from gpo.runtime.temporary import PrivateFolder

VARIABLE = "GPO_FORK_SERVER"
"""Tells ``forked_worker.py`` where the server is, and what it can fork."""
SCRIPT = Path(__file__).with_name("forked_worker.py")
MODULES = (
    "actors.answers",
    "actors.checkpoints",
    "actors.metrics.counts",
    "actors.metrics.totals",
    "gpo.models.client",
    "gpo.models.openai",
    "gpo.optimizer",
    "gpo.scoring.abilities",
    # Of Ray and Serve. Not pandas, which Serve loads if it is installed: it starts a thread.
    "click",
    "fastapi.encoders",
    "filelock",
    "google.protobuf.descriptor_pb2",
    "jsonschema",
    "opentelemetry.metrics",
    "opentelemetry.trace",
    "prometheus_client",
    "rapidfuzz.distance",
    "requests",
    "tqdm",
    "uvicorn",
    "yaml",
)
_CHUNK_BYTES = 1 << 16


class ForkServer:
    """The server, as a process of its own. It ends with the process that started it.

    Its socket is in a folder that only this user can open.

    Args:
        modules: what it loads; a module that is missing is left out.

    Raises:
        OSError: this system, or its folder for temporary files, does not permit a server.
    """

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        if not (hasattr(socket, "SO_PEERCRED") and Path("/proc/self/oom_score_adj").exists()):
            raise OSError("only Linux has what a fork server needs")
        self._folder = PrivateFolder("gpo-fork-", os.environ.get("RAY_TMPDIR"))
        self._path = f"{self._folder.path}/socket"
        # Ray passes these on to its workers.
        options = [
            option for option, is_set in {"-S": sys.flags.no_site, "-s": sys.flags.no_user_site}.items() if is_set
        ]
        self._python = [sys.executable, *options]
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self._path)
                listener.listen(128)
                self.process = subprocess.Popen(  # noqa: S603
                    # -P: a file in the working folder must not take the place of a module.
                    [*self._python, "-P", "-m", __name__, str(listener.fileno()), str(self._folder.path), *modules],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # A process with several threads must not fork. NumPy makes its threads while it is loaded.
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                    pass_fds=[listener.fileno()],
                    start_new_session=True,  # Ctrl-C is for the command
                )
        except BaseException:
            self._folder.remove()
            raise

    def variable(self, script: str) -> str:
        """The value of ``VARIABLE`` in the environment of the raylet.

        Args:
            script: path of Ray's own script for a worker.
        """
        return json.dumps([self._path, self._python, os.environ.get("PYTHONPATH"), script])

    def close(self) -> None:
        """End the server. Workers that it has forked continue."""
        self.process.kill()
        self.process.communicate()
        self._folder.remove()


def load(modules: Iterable[str]) -> None:
    """Import modules, and keep their memory shared after a fork: the garbage collector would write into it."""
    with collector_off():
        for name in modules:
            with suppress(ImportError):
                import_module(name)
        gc.collect()


def main() -> None:
    """Fork a worker for each connection, until the end of standard input."""
    number, folder, *modules = sys.argv[1:]
    listener = socket.socket(fileno=int(number))
    load(modules)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes workers that have ended
    # Not ``select.select``, which fails above 1,023: the listener keeps its number from a process with many open files.
    ready = select.poll()
    for file in (listener, sys.stdin):
        ready.register(file, select.POLLIN)
    while True:
        if sys.stdin.fileno() in dict(ready.poll()):
            shutil.rmtree(folder, ignore_errors=True)  # the process that would remove it may have been killed
            return
        connection, _ = listener.accept()
        if _is_fork():
            break
        connection.close()
    listener.close()
    _run(_received(connection))


def _is_fork() -> bool:
    try:
        return os.fork() == 0
    except OSError:  # too many processes: the script becomes the worker, or fails with this error
        return False


def _received(connection: socket.socket) -> dict[str, Any]:
    """The worker that the script at the other end asks for. This process has its settings and files then.

    Raises:
        SystemExit: the script does not need this process.
    """
    with connection:
        connection.settimeout(WITHIN_S)
        try:
            if not is_own_user(connection):
                sys.exit(1)
            request, files, _, _ = socket.recv_fds(connection, _CHUNK_BYTES, 3)
            while chunk := connection.recv(_CHUNK_BYTES):
                request += chunk
            worker: dict[str, Any] = json.loads(request)
            _prepare(worker, files)
            connection.sendall(b"1")
        except (OSError, ValueError):  # such as a script that has been killed
            sys.exit(1)
    return worker


def _prepare(worker: dict[str, Any], files: Sequence[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)  # the raylet ends a worker's whole group
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(worker["open_files"]))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(worker["oom_score_adj"], encoding="ascii")
    os.environ.clear()
    os.environ.update(worker["environ"])
    os.chdir(worker["folder"])


def _run(worker: dict[str, Any]) -> None:
    """Run the script of a worker in this process, as if the raylet had started it."""
    script = worker["script"]
    sys.argv = [script, *worker["arguments"]]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
