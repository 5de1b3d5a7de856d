"""Prometheus metrics of runs: the catalogue, the counts of each process, and the exporter that answers scrapes.

How a number gets to Prometheus:

1. In each process that calls models, a ``Recorder`` counts in memory (``recorder``).
2. Twice a second the process reports its cumulative counts to the limiter, which keeps the newest report of each
   process (``totals.ReportStore``).
3. The driver of the run fetches the reports once a second and keeps them until the run ends (``totals.RunTotals``).
4. The driver adds what it counts itself, from the updates of its trajectories, and hands the sum to the exporter
   (``exporter``), which answers scrapes. The exporter runs in the driver, or, on a shared cluster, in one actor on the
   head node.

Counts are cumulative, so a newer report replaces an older one, and nothing that dies on the way takes counts along: a
limiter that restarts learns them again from the processes, an exporter that restarts from the drivers. What holds:

- Counters never fall while the driver lives.
- If no process is killed, counters equal the endpoint's own log at the end of the run.
- A process that is killed takes along what it had not reported yet (half a second), and the requests that it had under
  way: they are in no counter.

Why not ``ray.util.metrics``? ``python -m benchmarks.metrics --ray-util`` measures it. With Ray 2.60, counters keep the
counts of processes that have ended, but a killed process takes along all that it counted in up to ten seconds (the
export interval of the cluster, which a run cannot choose), the sum of a histogram is estimated from the middle of each
bucket (5,500 for 1,000 values of 7 in a bucket from 1 to 10), and a driver cannot wait at the end of a run until
everything is exported. Each node has an endpoint of its own, so a scraper has to find all nodes, and ``gpo monitor``
could not find a single run.
"""
