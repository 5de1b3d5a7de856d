"""Numbers by series: counted in memory, added up, and converted for ``prometheus_client``."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from actors.metrics.catalogue import CATALOGUE, Kind, Metric

Series = tuple[str, tuple[str, ...]]
"""A metric's name, and the values of its labels in the metric's order."""

Numbers = Mapping[Series, Sequence[float]]
"""Series → its numbers. A counter or a gauge has one; a histogram has the count of each bucket (without the buckets
below it, with the one up to infinity), then the sum of all values. Pickles."""


class Counts:
    """The numbers of this process. One thread counts; another one may take snapshots meanwhile."""

    def __init__(self) -> None:
        self._rows: dict[Series, list[float]] = {}

    def row(self, metric: Metric, *labels: str) -> list[float]:
        """The numbers of a series, to count in; a new series starts at 0 and is exported from now on."""
        series = (metric.name, labels)
        row = self._rows.get(series)
        if row is None:
            row = self._rows[series] = [0.0] * metric.width
        return row

    def add(self, metric: Metric, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter or a gauge."""
        self.row(metric, *labels)[0] += amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        self.row(metric, *labels)[0] = value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram."""
        observe(self.row(metric, *labels), metric, value)

    def snapshot(self) -> Numbers:
        """A copy of all numbers."""
        return {series: tuple(row) for series, row in list(self._rows.items())}


def observe(row: list[float], metric: Metric, value: float) -> None:
    """Add a value to the row of a histogram; a value that equals the bound of a bucket is in that bucket."""
    row[bisect_left(metric.buckets, value)] += 1.0
    row[-1] += value


def total(parts: Iterable[Numbers]) -> dict[Series, list[float]]:
    """The sum over parts, such as processes or runs."""
    whole: dict[Series, list[float]] = {}
    for part in parts:
        for series, numbers in part.items():
            row = whole.setdefault(series, [0.0] * len(numbers))
            for index, number in enumerate(numbers):
                row[index] += number
    return whole


def families(numbers: Numbers) -> Iterator[Family]:
    """What ``prometheus_client`` exports: all metrics in the catalogue's order, also those without a series yet."""
    by_metric: dict[str, dict[tuple[str, ...], Sequence[float]]] = {name: {} for name in CATALOGUE}
    for (name, labels), row in numbers.items():
        by_metric[name][labels] = row
    for name, rows in by_metric.items():
        yield _family(CATALOGUE[name], rows)


def registry(numbers: Callable[[], Numbers]) -> CollectorRegistry:
    """A registry that exports these numbers, asked for at each scrape."""
    made = CollectorRegistry()
    made.register(_NumbersCollector(numbers))
    return made


class _NumbersCollector(Collector):
    def __init__(self, numbers: Callable[[], Numbers]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Family]:
        return families(self._numbers())


def _family(metric: Metric, rows: Mapping[tuple[str, ...], Sequence[float]]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, row in rows.items():
            histogram.add_metric(labels, _cumulative(metric, row), row[-1])
        return histogram
    plain_class = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    plain = plain_class(metric.name, metric.help, labels=metric.labels)
    for labels, value in _with_zeros(metric, rows):
        plain.add_metric(labels, value)
    return plain


def _cumulative(metric: Metric, row: Sequence[float]) -> list[tuple[str, float]]:
    so_far, buckets = 0.0, []
    for bound, count in zip([*map(str, metric.buckets), "+Inf"], row, strict=False):
        so_far += count
        buckets.append((bound, so_far))
    return buckets


def _with_zeros(
    metric: Metric, rows: Mapping[tuple[str, ...], Sequence[float]]
) -> Iterator[tuple[tuple[str, ...], float]]:
    if not metric.values:
        yield from ((labels, row[0]) for labels, row in rows.items())
        return
    for group in dict.fromkeys(labels[:-1] for labels in rows):
        for value in metric.values:
            yield (*group, value), rows.get((*group, value), (0.0,))[0]
