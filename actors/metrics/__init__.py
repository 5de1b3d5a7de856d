"""Prometheus metrics of runs: the catalogue, the counts of each process, and the exporter that answers scrapes.

How a number gets to Prometheus:

1. In each process that calls models, a ``Recorder`` counts in memory (``recorder``).
2. Twice a second the process reports its cumulative counts to the limiter, which keeps the newest report of each
   process (``totals.ReportStore``).
3. The driver of the run fetches the reports once a second and keeps them until the run ends (``totals.RunTotals``).
4. The driver adds what it counts itself, from the updates of its trajectories, and hands the sum to the exporter
   (``exporter``), which answers scrapes. The exporter runs in the driver, or, on a shared cluster, in one actor on the
   head node.

Counts are cumulative, so a newer report replaces an older one, and no count is lost when the limiter or the exporter
dies: a restarted limiter gets the counts from the processes again, a restarted exporter from the drivers. Guarantees:

- Counters never fall while the driver lives.
- If no process is killed, counters equal the endpoint's own log at the end of the run.
- A process that is killed loses its last half second of counts, which it had not reported yet. Its requests in flight
  appear in no counter.

Why not ``ray.util.metrics``? ``python -m benchmarks.metrics --ray-util`` measures it. With Ray 2.60, counters keep the
counts of processes that have ended, but a killed process loses up to ten seconds of counts (the export interval of the
cluster, which a run cannot choose), the sum of a histogram is estimated from the middle of each bucket (5,500 for 1,000
values of 7 in a bucket from 1 to 10), and a driver cannot wait at the end of a run until everything is exported. Each
node has its own endpoint, so a scraper has to find all nodes, and ``gpo monitor`` could not find a single run.
"""
