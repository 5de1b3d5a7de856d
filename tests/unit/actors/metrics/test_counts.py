from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from actors.metrics.catalogue import CATALOGUE, SCORE, STEPS, WAIT, Kind
from actors.metrics.counts import Counts, Numbers, registry, total
from actors.metrics.recorder import Recorder
from gpo.limits.messages import Pool
from gpo.models.events import Outcome
from gpo.models.protocol import Usage

POOL = Pool("http://nowhere", "m", 1, 1, role="task")


def series(numbers: Numbers) -> dict[str, float]:
    """What a scraper reads: name and label values → value, without those that are 0."""
    found = text_string_to_metric_families(generate_latest(registry(lambda: numbers)).decode())
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


def test_the_counts_of_several_processes_are_summed() -> None:
    processes = [Counts(), Counts()]
    for counts, number, score in zip(processes, (1, 2), (0.5, 0.25), strict=True):
        counts.add(STEPS, "r", "t", "0", amount=number)
        counts.set(SCORE, score, "r", "t", str(number), "best")
        for wait in (0.01, 0.05, 1000.0):
            counts.observe(WAIT, wait, "r", "task", "m")
    found = series(total(counts.snapshot() for counts in processes))
    assert found["gpo_steps_total r t 0"] == 3
    assert found["gpo_trajectory_score_ratio r t 1 best"] == 0.5
    # A value that equals a bound is within it.
    assert found["gpo_limiter_wait_seconds_bucket r task m 0.01"] == 2
    assert found["gpo_limiter_wait_seconds_bucket r task m 0.1"] == 4
    assert found["gpo_limiter_wait_seconds_bucket r task m 300.0"] == 4
    assert found["gpo_limiter_wait_seconds_bucket r task m +Inf"] == 6
    assert found["gpo_limiter_wait_seconds_count r task m"] == 6
    assert found["gpo_limiter_wait_seconds_sum r task m"] == pytest.approx(2000.12)


def test_a_snapshot_does_not_change_when_counting_continues() -> None:
    counts = Counts()
    counts.add(STEPS, "r", "t", "0")
    before = counts.snapshot()
    counts.add(STEPS, "r", "t", "0")
    assert (series(before), series(counts.snapshot())) == ({"gpo_steps_total r t 0": 1}, {"gpo_steps_total r t 0": 2})


def test_a_series_is_exported_at_0_before_it_counts() -> None:
    counts = Counts()
    assert b"gpo_steps_total{" not in generate_latest(registry(counts.snapshot))
    counts.row(STEPS, "r", "t", "0")
    assert b'gpo_steps_total{run="r",seed="0",task="t"} 0.0' in generate_latest(registry(counts.snapshot))


def test_calls_are_counted_by_task_and_not_by_trajectory() -> None:
    counts = Counts()
    recorder = Recorder(counts, "r")
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
    recorder.request_queued(POOL, "a/0")
    recorder.request_abandoned(POOL, "a/0")
    recorder.call_failed(POOL, "a/0", is_final=True)
    recorder.cache_lookup("task", "a/1", is_hit=True)
    recorder.cache_lookup("task", "a/1", is_hit=False)
    recorder.checkpoint_saved("a/1")
    found = series(counts.snapshot())
    expected = {
        "gpo_model_requests_total r a task m answered": 2,
        "gpo_model_requests_total r c task m too_many": 1,
        "gpo_model_retries_total r c task m": 1,
        "gpo_model_tokens_total r a task m prompt": 10,
        "gpo_model_tokens_total r a task m completion": 4,
        "gpo_model_cost_usd_total r a task m": 1.0,
        "gpo_model_flawed_replies_total r a task m truncated": 1,
        "gpo_model_request_duration_seconds_count r task m": 2,
        "gpo_limiter_wait_seconds_count r task m": 4,
        "gpo_model_requests_in_flight r a task m": 1,
        "gpo_model_requests_waiting r a task m": 1,
        "gpo_model_failures_total r a task m refused": 1,
        "gpo_cache_lookups_total r a task hit": 1,
        "gpo_cache_lookups_total r a task miss": 1,
        "gpo_checkpoints_total r a": 1,
    }
    assert {name: found[name] for name in expected} == expected
