"""``gpo report``."""

from __future__ import annotations

from cluster.cli.options import RunDir, folder_at
from cluster.cli.terminal import OK, show
from gpo.errors import ConfigError


def report(run_dir: RunDir) -> int:
    """Write **report.html** of the run in RUN_DIR again, also while the run works.

    Example: **gpo report runs/quickstart**
    """
    from cluster.reporting.examples import page_answers
    from cluster.reporting.page import report as report_page
    from cluster.results.stored_run import RunReader

    folder = folder_at("RUN_DIR", run_dir)
    stored = RunReader(folder).read()
    try:
        answers = page_answers(folder, stored.record)
        folder.write("report.html", report_page(stored.record, stored.document(), answers).encode())
    except (OSError, ImportError, ValueError) as error:
        problem = f"{folder.path('report.html')!r} cannot be written ({error})"
        raise ConfigError("RUN_DIR", problem, "copy the folder") from None
    show(folder.path("report.html"))
    return OK
