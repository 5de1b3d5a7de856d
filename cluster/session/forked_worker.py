"""The script that the raylet starts for a worker, and the client of ``fork_server.py``. It imports little."""

import json
import os
import resource
import socket
import sys


def main() -> None:
    """Let the server fork the worker; without it, become the worker."""
    name, python, path, script = json.loads(os.environ["GPO_FORK_SERVER"])
    # The runtime environment of a worker may choose other modules.
    if (sys.executable, os.environ.get("PYTHONPATH")) != (python, path) or not _is_forked(name, script):
        os.execv(python, [sys.executable, script, *sys.argv[1:]])  # noqa: S606


def _is_forked(server: str, script: str) -> bool:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes long to load
        oom_score_adj = file.read()
    request = {
        "script": script,
        "arguments": sys.argv[1:],
        "environ": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109 - as above
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "oom_score_adj": oom_score_adj,
    }
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"\0{server}")
            socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1) == b"1"
    except OSError:
        return False


if __name__ == "__main__":
    main()
