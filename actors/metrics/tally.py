"""What all processes counted, put together: sums over the dead and the living, and what follows from a death."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from actors.metrics.book import BEGUN, CLOSED, SUM, VALUE, Cell, Page
from actors.metrics.catalogue import ACTOR_DEATHS, ACTORS, CATALOGUE, IN_FLIGHT, LOST, REQUESTS, Kind, Metric

Tally = dict[Cell, float]
"""Numbers by what they count. Pickles."""


def tally(pages: Iterable[Page]) -> Tally:
    """The sum over processes. Gauges are of the living alone.

    A request that a process began and did not end is under way; where the process has died, it is lost.
    """
    total: Tally = {}
    for page in pages:
        for cell, value in _of_process(page):
            total[cell] = total.get(cell, 0.0) + value
    return total


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum over nodes."""
    whole: Tally = {}
    for one in tallies:
        for cell, value in one.items():
            whole[cell] = whole.get(cell, 0.0) + value
    return whole


def lost(counted: Tally) -> Tally:
    """What is left of a node's tally once the node is lost: its processes have died, as if each had been killed.

    What is lost already stays as it is.
    """
    left = {cell: value for cell, value in counted.items() if CATALOGUE[cell.metric].kind is not Kind.GAUGE}
    for cell, value in counted.items():
        if cell.metric == IN_FLIGHT.name:
            left[cell] = 0.0
            left[Cell(REQUESTS.name, VALUE, (*cell.labels, LOST))] += value
        elif cell.metric == ACTORS.name and cell.part == VALUE:
            left[cell] = 0.0
            closed = counted.get(Cell(ACTORS.name, CLOSED, cell.labels), 0.0)
            left[Cell(ACTOR_DEATHS.name, VALUE, cell.labels)] += value - closed
    return left


def _of_process(page: Page) -> Iterator[tuple[Cell, float]]:
    ended: dict[tuple[str, ...], float] = {}
    for cell, value in page.cells.items():
        if cell.metric == REQUESTS.name and cell.part == VALUE:
            ended[cell.labels[:-1]] = ended.get(cell.labels[:-1], 0.0) + value
    for cell, value in page.cells.items():
        if cell.part == BEGUN:
            open_ones = value - ended.get(cell.labels, 0.0)
            yield Cell(IN_FLIGHT.name, VALUE, cell.labels), open_ones if page.is_alive else 0.0
            yield Cell(REQUESTS.name, VALUE, (*cell.labels, LOST)), 0.0 if page.is_alive else open_ones
        elif cell.metric == ACTORS.name:
            if cell.part == VALUE:
                is_dead = not page.is_alive and Cell(ACTORS.name, CLOSED, cell.labels) not in page.cells
                yield cell, float(page.is_alive)
                yield Cell(ACTOR_DEATHS.name, VALUE, cell.labels), float(is_dead)
            elif page.is_alive:
                yield cell, value  # it may end now, and is not dead then
        elif page.is_alive or CATALOGUE[cell.metric].kind is not Kind.GAUGE:
            yield cell, value


def families(numbers: Tally) -> Iterator[Family]:
    """What ``prometheus_client`` shows, in the catalogue's order; all metrics, also those without a number yet."""
    by_metric: dict[str, dict[tuple[str, ...], dict[str, float]]] = {name: {} for name in CATALOGUE}
    for cell, value in numbers.items():
        by_metric[cell.metric].setdefault(cell.labels, {})[cell.part] = value
    for name, rows in by_metric.items():
        yield _family(CATALOGUE[name], rows)


def _family(metric: Metric, rows: Mapping[tuple[str, ...], Mapping[str, float]]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, parts in rows.items():
            histogram.add_metric(labels, _cumulative(metric, parts), parts.get(SUM, 0.0))
        return histogram
    plain_class = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    plain = plain_class(metric.name, metric.help, labels=metric.labels)
    for labels, value in _with_zeros(metric, {labels: parts.get(VALUE, 0.0) for labels, parts in rows.items()}):
        plain.add_metric(labels, value)
    return plain


def _cumulative(metric: Metric, parts: Mapping[str, float]) -> list[tuple[str, float]]:
    bounds = [*map(str, metric.buckets), "+Inf"]
    so_far, buckets = 0.0, []
    for index, bound in enumerate(bounds):
        so_far += parts.get(str(index), 0.0)
        buckets.append((bound, so_far))
    return buckets


def _with_zeros(metric: Metric, rows: Mapping[tuple[str, ...], float]) -> Iterator[tuple[tuple[str, ...], float]]:
    if not metric.values:
        yield from rows.items()
        return
    for group in dict.fromkeys(labels[:-1] for labels in rows):
        for value in metric.values:
            yield (*group, value), rows.get((*group, value), 0.0)
