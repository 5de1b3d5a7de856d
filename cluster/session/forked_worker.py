"""The script that the raylet starts for a worker, and the client of ``fork_server.py``. It imports little."""

import json
import os
import resource
import select
import socket
import struct
import sys

WITHIN_S = 30.0
"""How long each side waits for the other one. The server may still be loading its modules on a busy machine."""


def main() -> None:
    """Let the server fork the worker; without it, become the worker."""
    server, python, path, script = json.loads(os.environ["GPO_FORK_SERVER"])
    own_python = [sys.executable, *sys.orig_argv[1 : -len(sys.argv)]]  # with its options
    # The runtime environment of a worker may choose other modules.
    if own_python != python or os.environ.get("PYTHONPATH") != path or not _is_forked(server, script):
        os.execv(sys.executable, [*own_python, script, *sys.argv[1:]])  # noqa: S606


def is_own_user(connection: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket is of this user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


def _is_forked(server: str, script: str) -> bool:
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes long to load
            oom_score_adj = file.read()
        worker = {
            "script": script,
            "arguments": sys.argv[1:],
            "environ": dict(os.environ),
            "folder": os.getcwd(),  # noqa: PTH109 - as above
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "oom_score_adj": oom_score_adj,
        }
        request = json.dumps(worker).encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WITHIN_S)
            connection.connect(server)
            if not is_own_user(connection):
                return False
            sent = socket.send_fds(connection, [request], [0, 1, 2])
            connection.sendall(request[sent:])
            connection.shutdown(socket.SHUT_WR)
            select.select([connection], [], [], WITHIN_S)
            # From here on, the fork cannot reply, and ends. Either its reply has arrived, or it is not the worker.
            connection.shutdown(socket.SHUT_RD)
            return connection.recv(1) == b"1"
    except OSError:
        return False


if __name__ == "__main__":
    main()
