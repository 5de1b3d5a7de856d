"""Commands that look at what is there: ``report``, ``status`` and ``monitor``."""

from __future__ import annotations

from pathlib import Path

from cluster.commands.exit_codes import FAILED, OK
from cluster.commands.places import folder_at
from cluster.commands.terminal import out, say, show
from gpo.errors import ConfigError


def report(run_dir: str) -> int:
    """``gpo report``."""
    from cluster.reporting.page import report as report_page
    from cluster.results.stored_run import RunReader

    folder = folder_at("RUN_DIR", run_dir)
    stored = RunReader(folder).read()
    try:
        folder.write("report.html", report_page(stored.record, stored.document()).encode())
    except (OSError, ImportError, ValueError) as error:
        raise ConfigError(
            "RUN_DIR", f"{folder.path('report.html')!r} cannot be written ({error})", "copy the folder"
        ) from None
    show(folder.path("report.html"))
    return OK


def status(run_dir: str, as_document: bool, watch_s: float | None) -> int:
    """``gpo status``."""
    from cluster.results.status import follow_status, print_status
    from cluster.results.stored_run import RunReader

    reader = RunReader(folder_at("RUN_DIR", run_dir))
    if watch_s is None:
        seen = print_status(reader, out, as_document)
    else:
        seen = follow_status(reader, out, as_document, watch_s)
    return OK if seen.is_well else FAILED


def monitor(run_dir: Path | None, port: int) -> int:
    """``gpo monitor``."""
    from cluster.metrics.monitor import DASHBOARDS, monitored_run, prometheus

    run = monitored_run(run_dir) if run_dir is not None else None
    with prometheus(run, port) as server:
        say(f"Prometheus is at {server.url}, and watches {run or 'all runs on this machine that have a metrics.port'}.")
        say(f"In Grafana, add a data source of type Prometheus with this address, and import {DASHBOARDS}/*.json.")
        say("Start runs with --set metrics.port=0. Ctrl-C ends this.")
        server.wait()
    return OK
