"""``python -m cluster.submitting.stored_logs NAME [CLUSTER]``: the drivers' output of a RayJob's earlier attempts.

KubeRay deletes the submitter of an attempt that failed, and its log with it. The attempt's head copies Ray's logs to
the storage when it ends.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = Path("/storage/logs")
"""The folder that a head copies its logs to, in a subfolder with the name of its pod."""


def main(arguments: Sequence[str]) -> None:
    """Print the logs of the RayJob that is named, except for those of the RayCluster that is named."""
    name, current = (*arguments, "")[:2]
    for pod, log in driver_logs(name, current):
        sys.stdout.write(f"--- {pod}\n{log}\n")


def driver_logs(name: str, current: str = "", folder: Path = FOLDER) -> Iterator[tuple[str, str]]:
    """Pod and output of each driver of a RayJob, the oldest first.

    Args:
        name: of the RayJob.
        current: of a RayCluster whose logs are left out.
    """
    # KubeRay appends "-" and five characters for the cluster, and shortens names before it appends "-head-" and five.
    of_job = re.compile(rf"{re.escape(name)}-[a-z0-9]{{1,5}}-head-[a-z0-9]+")
    found = [
        (log.stat().st_mtime, path.name, log)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if of_job.fullmatch(path.name) and not (current and path.name.startswith(f"{current[:50]}-head-"))
        for log in path.glob("job-driver-*.log")
    ]
    for _, pod, log in sorted(found):
        yield pod, log.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main(sys.argv[1:])
