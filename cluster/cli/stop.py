"""``gpo stop``."""

from __future__ import annotations

from cluster.cli.options import RunDir, folder_at
from cluster.cli.terminal import OK, show


def stop(run_dir: RunDir) -> int:
    """Stop the run, comparison or sweep in RUN_DIR, as Ctrl-C in its own terminal does.

    Example: **gpo stop runs/quickstart**

    Writes an empty file **stop** to the folder. The process that works there finds it within a few seconds, saves all
    finished work and ends. Works from any machine that reaches the folder. **--resume** removes the file and continues.
    For a trial of a sweep, name the sweep's folder.
    """
    from cluster.runs.stop_file import request_stop

    folder = folder_at("RUN_DIR", run_dir)
    request_stop(folder)
    show(f"Stop requested. The process that works in {folder.path('')} saves its work and ends within a few seconds.")
    return OK
