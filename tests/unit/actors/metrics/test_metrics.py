from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from actors.metrics.book import Book, pages
from actors.metrics.catalogue import CATALOGUE, SCORE, STEPS, WAIT, Kind, exposed_names
from actors.metrics.recording import Recorder
from actors.metrics.tally import Tally, families, lost, tally, total
from gpo.events import Outcome
from gpo.limits.messages import Pool
from gpo.models.protocol import Usage
from tests.paths import ROOT

POOL = Pool("http://nowhere", "m", 1, 1, role="task")


def _series(numbers: Tally) -> dict[str, float]:
    """As a scraper reads them: name and label values → value; without what is 0."""

    class Numbers(Collector):
        def collect(self) -> object:
            return families(numbers)

    registry = CollectorRegistry()
    registry.register(Numbers())
    found = text_string_to_metric_families(generate_latest(registry).decode())
    order = {name: metric.labels for metric in CATALOGUE.values() for name in metric.exposed}
    return {
        " ".join(
            [sample.name, *(sample.labels[label] for label in (*order[sample.name], "le") if label in sample.labels)]
        ): sample.value
        for family in found
        for sample in family.samples
        if sample.value
    }


def test_names_follow_prometheus() -> None:
    for metric in CATALOGUE.values():
        assert metric.name.startswith("gpo_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
        assert metric.help.endswith(".")
        assert metric.labels[0] == "run"
        assert set(metric.labels) <= {
            "run", "task", "seed", "role", "model", "outcome", "reason", "kind", "result", "prompt", "fate", "phase",
            "budget", "actor", "state", "flaw",
        }  # fmt: skip
    assert len(exposed_names()) > len(CATALOGUE)


def test_what_processes_counted_is_summed(tmp_path: Path) -> None:
    books = [Book(tmp_path / "node", "r", "evaluator") for _ in range(2)]
    for book, number, score in zip(books, (1, 2), (0.5, 0.25), strict=True):
        book.count(STEPS, "r", "t", "0").add(number)
        book.count(SCORE, "r", "t", str(number), "best").set(score)
        for wait in (0.01, 0.05, 1000.0):
            book.distribution(WAIT, "r", "task", "m").observe(wait)
    series = _series(tally(pages(tmp_path / "node")))
    assert series["gpo_steps_total r t 0"] == 3
    assert series["gpo_trajectory_score_ratio r t 1 best"] == 0.5
    assert series["gpo_actors r evaluator"] == 2
    # A value that equals a bound is within it.
    assert series["gpo_limiter_wait_seconds_bucket r task m 0.01"] == 2
    assert series["gpo_limiter_wait_seconds_bucket r task m 0.1"] == 4
    assert series["gpo_limiter_wait_seconds_bucket r task m 300.0"] == 4
    assert series["gpo_limiter_wait_seconds_bucket r task m +Inf"] == 6
    assert series["gpo_limiter_wait_seconds_count r task m"] == 6
    assert series["gpo_limiter_wait_seconds_sum r task m"] == pytest.approx(2000.12)


def test_a_label_set_has_one_number_however_often_it_is_asked_for(tmp_path: Path) -> None:
    book = Book(tmp_path / "node", "r", "driver")

    def count() -> None:
        for _ in range(2000):
            book.count(STEPS, "r", "t", "0").add()

    threads = [Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _series(tally(pages(tmp_path / "node")))["gpo_steps_total r t 0"] == 8000


def test_calls_are_counted_by_task_and_not_by_trajectory(tmp_path: Path) -> None:
    recorder = Recorder(Book(tmp_path / "node", "r", "evaluator"), "r")
    for caller, outcome in (("a/0", Outcome.ANSWERED), ("a/1", Outcome.ANSWERED), ("b/c/0", Outcome.TOO_MANY)):
        recorder.request_queued(POOL, caller)
        recorder.request_started(POOL, caller, 0.0, is_retry=outcome is Outcome.TOO_MANY)
        usage = (
            Usage(prompt_tokens=5, completion_tokens=2, cost_usd=0.5, truncated=caller == "a/1")
            if outcome is Outcome.ANSWERED
            else None
        )
        recorder.request_ended(POOL, caller, outcome, 0.3, usage)
    recorder.request_queued(POOL, "a/0")
    recorder.request_started(POOL, "a/0", 0.0, is_retry=False)
    recorder.request_queued(POOL, "a/0")
    recorder.call_failed(POOL, "a/0", is_final=True)
    recorder.cache_lookup("task", "a/1", is_hit=True)
    recorder.cache_lookup("task", "a/1", is_hit=False)
    recorder.checkpoint_saved("a/1")
    series = _series(tally(pages(tmp_path / "node")))
    expected = {
        "gpo_model_requests_total r a task m answered": 2,
        "gpo_model_requests_total r b/c task m too_many": 1,
        "gpo_model_retries_total r b/c task m": 1,
        "gpo_model_tokens_total r a task m prompt": 10,
        "gpo_model_tokens_total r a task m completion": 4,
        "gpo_model_cost_usd_total r a task m": 1.0,
        "gpo_model_flawed_replies_total r a task m truncated": 1,
        "gpo_model_request_duration_seconds_count r task m": 2,
        "gpo_model_requests_in_flight r a task m": 1,
        "gpo_model_requests_waiting r a task m": 1,
        "gpo_model_failures_total r a task m refused": 1,
        "gpo_cache_lookups_total r a task hit": 1,
        "gpo_cache_lookups_total r a task miss": 1,
        "gpo_checkpoints_total r a": 1,
    }
    assert {name: series[name] for name in expected} == expected


_VICTIM = """
import sys, time
from pathlib import Path
from actors.metrics.book import Book
from actors.metrics.catalogue import SCORE, STEPS
from actors.metrics.recording import Recorder
from gpo.limits.messages import Pool
from gpo.events import Outcome
book = Book(Path(sys.argv[1]), "r", "trajectories")
recorder, pool = Recorder(book, "r"), Pool("http://nowhere", "m", 1, 1, role="task")
for number in range(5):
    recorder.request_queued(pool, "a/0")
    recorder.request_started(pool, "a/0", 0.0, is_retry=False)
    if number < 3:
        recorder.request_ended(pool, "a/0", Outcome.CANCELLED, 0.1, None)
book.count(SCORE, "r", "a", "0", "best").set(0.5)
if sys.argv[2] == "farewell":
    book.close()
book.count(STEPS, "r", "a", "0").add(7)
print("ready", flush=True)
time.sleep(60)
"""


def _killed(folder: Path, farewell: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(folder), farewell], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    alive = _series(tally(pages(folder)))
    assert alive["gpo_model_requests_in_flight r a task m"] == 2
    assert alive["gpo_actors r trajectories"] == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(("farewell", "deaths"), [("none", 1), ("farewell", 0)])
def test_a_killed_process_takes_no_count_with_it(farewell: str, deaths: int, tmp_path: Path) -> None:
    _killed(tmp_path / "node", farewell)
    series = _series(tally(pages(tmp_path / "node")))
    assert series["gpo_steps_total r a 0"] == 7
    assert series["gpo_model_requests_total r a task m cancelled"] == 3
    # What it had begun may have been answered or not; nobody knows.
    assert series["gpo_model_requests_total r a task m lost"] == 2
    assert series.get("gpo_actor_deaths_total r trajectories", 0) == deaths
    assert not [name for name in series if name.startswith(("gpo_model_requests_in_flight", "gpo_trajectory_score"))]


def test_a_counter_is_there_before_it_counts(tmp_path: Path) -> None:
    Book(tmp_path / "node", "r", "driver").count(STEPS, "r", "t", "0")
    names = {cell.metric for cell in tally(pages(tmp_path / "node"))}
    assert names == {"gpo_steps_total", "gpo_actors", "gpo_actor_deaths_total"}


def test_nodes_are_summed() -> None:
    assert total([]) == {}
    assert list(pages(Path("/nowhere"))) == []


def test_books_are_for_their_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "node"
    Book(folder, "r", "driver")
    assert {path.stat().st_mode & 0o077 for path in (folder, folder.parent)} == {0}


def test_a_lost_node_is_told_of_as_if_each_of_its_processes_had_been_killed(tmp_path: Path) -> None:
    books = [Book(tmp_path / "node", "r", "evaluator") for _ in range(3)]
    for book in books:
        recorder = Recorder(book, "r")
        for outcome in (Outcome.ANSWERED, None):
            recorder.request_queued(POOL, "a/0")
            recorder.request_started(POOL, "a/0", 0.1, is_retry=False)
            if outcome is not None:
                recorder.request_ended(POOL, "a/0", outcome, 0.3, Usage(prompt_tokens=5))
        recorder.request_queued(POOL, "a/0")
        book.count(SCORE, "r", "a", "0", "best").set(0.5)
    books[0].close()
    found = list(pages(tmp_path / "node"))
    last = tally(found)
    assert _series(last)["gpo_actors r evaluator"] == 3
    assert lost(last) == lost(lost(last)) == tally(replace(page, is_alive=False) for page in found)
    series = _series(lost(last))
    assert series["gpo_model_requests_total r a task m answered"] == 3
    assert series["gpo_model_requests_total r a task m lost"] == 3
    assert series["gpo_actor_deaths_total r evaluator"] == 2
