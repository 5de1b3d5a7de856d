"""A process that has loaded what Ray's workers need, and forks each worker.

A worker spends most of its start with imports. Forked workers share them: the imports happen once, and their memory
counts once. The raylet starts ``forked_worker.py`` for each worker. That script hands its arguments, environment and
files over to the server. Where the server cannot help, the script continues as the worker itself.

Ray is not among the modules: it reads variables of the single worker while it is loaded. The server has one thread and
no connection when it forks.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import runpy
import secrets
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from select import select
from typing import Any

VARIABLE = "GPO_FORK_SERVER"
"""Tells ``forked_worker.py`` where the server is, and what it can fork."""
SCRIPT = Path(__file__).with_name("forked_worker.py")
MODULES = (
    "actors.answers",
    "actors.checkpoints",
    "actors.metrics.counts",
    "actors.metrics.totals",
    "gpo.models.openai",
    "gpo.optimizer",
    # Of Ray and Serve. Not pandas, which Serve loads if it is installed: it starts a thread.
    "click",
    "fastapi.encoders",
    "filelock",
    "google.protobuf.descriptor_pb2",
    "jsonschema",
    "opentelemetry.metrics",
    "opentelemetry.trace",
    "prometheus_client",
    "requests",
    "tqdm",
    "uvicorn",
    "yaml",
)
_CHUNK_BYTES = 1 << 16


class ForkServer:
    """The server, as a process of its own. It ends with the process that started it.

    Args:
        modules: what it loads; a module that is missing is left out.
    """

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        self._name = secrets.token_hex(16)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{self._name}")  # no file, and it disappears with the server
            listener.listen(128)
            self.process = subprocess.Popen(  # noqa: S603
                # -P: a file in the working folder must not take the place of a module.
                [sys.executable, "-P", "-m", __name__, str(listener.fileno()), *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the command
            )

    def variable(self, script: str) -> str:
        """The value of ``VARIABLE`` in the environment of the raylet.

        Args:
            script: path of Ray's own script for a worker.
        """
        return json.dumps([self._name, sys.executable, os.environ.get("PYTHONPATH"), script])

    def close(self) -> None:
        """End the server. Workers that it has forked continue."""
        self.process.kill()
        self.process.communicate()


def load(modules: Iterable[str]) -> None:
    """Import modules, and keep their memory shared after a fork: the garbage collector would write into it."""
    for name in modules:
        with suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Fork a worker for each request, until the end of standard input."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    load(sys.argv[2:])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes workers that have ended
    while True:
        ready, _, _ = select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        with connection:
            if not _is_own_user(connection):
                continue
            request, files, _, _ = socket.recv_fds(connection, _CHUNK_BYTES, 3)
            while chunk := connection.recv(_CHUNK_BYTES):
                request += chunk
            if os.fork() == 0:
                break
            connection.send(b"1")
            for file in files:
                os.close(file)
    listener.close()
    _become(json.loads(request), files)


def _is_own_user(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


def _become(worker: dict[str, Any], files: Sequence[int]) -> None:
    """Run the script of a worker in this process, as if the raylet had started it."""
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
    script = worker["script"]
    sys.argv = [script, *worker["arguments"]]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
