"""Scrapes runs as a Prometheus does, but often, and keeps every scrape."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from threading import Event, Thread
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

_EVERY_S = 0.25
_CUMULATIVE = ("_total", "_bucket", "_count", "_sum")

Scrape = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Name and labels of a series → value."""


class Scraper:
    """A context that scrapes every run which announces itself in a folder.

    Args:
        path: a run waits at its end for a scrape at ``/metrics``; at any other path a scrape finds the same, and the
            run still waits for another scraper's.

    Attributes:
        scrapes: all so far.
    """

    def __init__(self, folder: Path, path: str = "/metrics") -> None:
        self._path = path
        self._targets = folder / "home" / "gpo" / "monitoring" / "targets"
        self.scrapes: list[Scrape] = []
        self._over = Event()
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def sums(self, name: str, label: str = "run") -> Counter[str]:
        """Label value → sum of the series in the newest scrape; nothing while there is none."""
        found: Counter[str] = Counter()
        for (series, labels), value in (self.scrapes[-1] if self.scrapes else {}).items():
            if series == name:
                found[dict(labels)[label]] += int(value)
        return +found

    def fallen(self) -> list[str]:
        """Counters that were lower in a scrape than in the one before, or that were gone."""
        return [
            f"{series}: {value} in scrape {number}, then {after.get(series)}"
            for number, (before, after) in enumerate(zip(self.scrapes, self.scrapes[1:], strict=False))
            for series, value in before.items()
            if series[0].endswith(_CUMULATIVE) and after.get(series, -1.0) < value
        ]

    def _work(self) -> None:
        while not self._over.wait(_EVERY_S):
            for file in self._targets.glob("*.json"):
                try:
                    address = json.loads(file.read_text(encoding="utf-8"))[0]["targets"][0]
                    with urlopen(f"http://{address}{self._path}") as reply:
                        text = reply.read().decode()
                except (OSError, ValueError):  # the run has just ended
                    continue
                self.scrapes.append(
                    {
                        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                        for family in text_string_to_metric_families(text)
                        for sample in family.samples
                    }
                )
