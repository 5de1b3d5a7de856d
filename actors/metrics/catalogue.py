"""Every metric that a run exports: name, type, help and labels. Only these may be exported, plotted or alerted on.

Names follow Prometheus: ``gpo_``, a base unit (seconds, ratio in [0, 1], words, usd), ``_total`` on counters. The
configuration bounds the labels: they never hold a prompt, an answer or the text of an error. Counters start at 0 in
each attempt of a run; gauges include what earlier attempts did.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.search import Phase
from gpo.models.events import Outcome


class Kind(StrEnum):
    """Prometheus' type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        labels: names, in the order in which values are given.
        values: all values of the last label, if they are known in advance. Each is exported from the start, at 0, so
            that Prometheus sees the first increment as an increase.
        buckets: upper bounds of the buckets of a histogram, rising, without infinity.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> tuple[str, ...]:
        """The names of its series."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)

    @property
    def width(self) -> int:
        """How many numbers one of its series has; see ``actors.metrics.counts``."""
        return len(self.buckets) + 2 if self.buckets else 1


_LATENCIES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0)
_WAITS_S = (0.01, 0.1, 1.0, 5.0, 20.0, 60.0, 300.0)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_WORDS = (0.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 80.0, 120.0, 200.0)

_MODEL = ("run", "task", "role", "model")
_TASK = ("run", "task")
_TRAJECTORY = ("run", "task", "seed")

# Calls to models: counted by every process that calls them.

REQUESTS = Metric(
    "gpo_model_requests_total", Kind.COUNTER, "HTTP requests to a model, including retries, by outcome.",
    (*_MODEL, "outcome"), tuple(map(str, Outcome)),
)  # fmt: skip
RETRIES = Metric("gpo_model_retries_total", Kind.COUNTER, "Requests that repeat a failed request.", _MODEL)
FAILURES = Metric(
    "gpo_model_failures_total", Kind.COUNTER,
    "Calls given up: after the last retry (unavailable), or at once (refused).",
    (*_MODEL, "reason"), ("unavailable", "refused"),
)  # fmt: skip
TOKENS = Metric(
    "gpo_model_tokens_total", Kind.COUNTER, "Tokens as reported by the endpoint, also of failed and filtered replies.",
    (*_MODEL, "kind"), ("prompt", "completion"),
)  # fmt: skip
FLAWS = Metric(
    "gpo_model_flawed_replies_total", Kind.COUNTER,
    "Answered requests whose reply had no text, was cut off, or came without token counts.",
    (*_MODEL, "flaw"), ("empty", "truncated", "unmetered"),
)  # fmt: skip
COST = Metric("gpo_model_cost_usd_total", Kind.COUNTER, "Cost in dollars, by the prices in the configuration.", _MODEL)
DURATION = Metric(
    "gpo_model_request_duration_seconds", Kind.HISTOGRAM,
    "Time from sending a request to its answer; answered requests only.",
    ("run", "role", "model"), buckets=_LATENCIES_S,
)  # fmt: skip
WAIT = Metric(
    "gpo_limiter_wait_seconds", Kind.HISTOGRAM, "Time that a request waited for a permit: limits, rates, pauses.",
    ("run", "role", "model"), buckets=_WAITS_S,
)  # fmt: skip
IN_FLIGHT = Metric("gpo_model_requests_in_flight", Kind.GAUGE, "Requests sent and not yet answered.", _MODEL)
WAITING = Metric("gpo_model_requests_waiting", Kind.GAUGE, "Requests that wait for a permit.", _MODEL)
CACHE = Metric(
    "gpo_cache_lookups_total", Kind.COUNTER, "Repeatable calls, by whether the cache had the completion.",
    ("run", "task", "role", "result"), ("hit", "miss"),
)  # fmt: skip
CHECKPOINTS = Metric("gpo_checkpoints_total", Kind.COUNTER, "Checkpoints written.", _TASK)

# The trajectories: counted by the driver, from the checkpoints in their updates.

STEPS = Metric("gpo_steps_total", Kind.COUNTER, "Steps taken in this attempt of the run.", _TRAJECTORY)
STEPS_DONE = Metric("gpo_trajectory_steps", Kind.GAUGE, "Steps taken in all attempts of the run.", _TRAJECTORY)
STEPS_PLANNED = Metric("gpo_trajectory_steps_planned", Kind.GAUGE, "Steps of the whole trajectory.", _TRAJECTORY)
STALE_STEPS = Metric(
    "gpo_trajectory_steps_since_improvement", Kind.GAUGE, "Steps since the best prompt was found.", _TRAJECTORY
)
SCORE = Metric(
    "gpo_trajectory_score_ratio", Kind.GAUGE, "Mean score on val of the initial, the current and the best prompt.",
    (*_TRAJECTORY, "prompt"),
)  # fmt: skip
TEST_SCORE = Metric(
    "gpo_trajectory_test_score_ratio", Kind.GAUGE,
    "Mean score on test of the initial and the best prompt; known at the end.",
    (*_TRAJECTORY, "prompt"),
)  # fmt: skip
STEP_SIZE = Metric(
    "gpo_trajectory_step_size_words", Kind.GAUGE, "Words that the last step allowed to change; absent if unbounded.",
    _TRAJECTORY,
)  # fmt: skip
CANDIDATE_SCORE = Metric(
    "gpo_candidate_score_ratio", Kind.HISTOGRAM, "Mean scores of candidates on val.", _TASK, buckets=_RATIOS
)
EDIT_DISTANCE = Metric(
    "gpo_candidate_edit_distance_words", Kind.HISTOGRAM, "Words by which candidates differ from the current prompt.",
    _TASK, buckets=_WORDS,
)  # fmt: skip
SAMPLES = Metric(
    "gpo_samples_total", Kind.COUNTER, "Replies with new prompts, by outcome.", (*_TASK, "fate"),
    (
        "scored", "dropped", "malformed", "rejected", "repeated", "failed",
        "placeholders", "must_keep", "max_words", "forbid", "language", "copied_example", "parroted",
    ),
)  # fmt: skip
EXAMPLES = Metric(
    "gpo_examples_total", Kind.COUNTER,
    "Examples on which candidates were evaluated, by whether they were scored.", (*_TASK, "outcome"),
    ("scored", "unscored"),
)  # fmt: skip

# The run.

RUN_ACTIVE = Metric("gpo_run_active", Kind.GAUGE, "1 while the run works, 0 once it has ended.", ("run",))
RUN_STARTED = Metric(
    "gpo_run_start_timestamp_seconds", Kind.GAUGE, "Unix time at which this attempt of the run started.", ("run",)
)  # fmt: skip
RUN_PROGRESS = Metric(
    "gpo_run_progress_timestamp_seconds", Kind.GAUGE, "Unix time of the last update of a trajectory.", ("run",)
)
TRAJECTORIES = Metric(
    "gpo_trajectories", Kind.GAUGE, "Trajectories by phase.", ("run", "phase"),
    (*map(str, Phase), "failed"),
)  # fmt: skip
BUDGET_LEFT = Metric("gpo_budget_left_ratio", Kind.GAUGE, "Share of a budget that is left.", ("run", "budget"))
ACTORS = Metric("gpo_actors", Kind.GAUGE, "Live processes of the run.", ("run", "actor"))
ACTOR_DEATHS = Metric(
    "gpo_actor_deaths_total", Kind.COUNTER,
    "Processes of the run that died unexpectedly; each is restarted.", ("run", "actor")
)  # fmt: skip

# Sweeps.

TRIALS = Metric(
    "gpo_trials", Kind.GAUGE, "Trials of a sweep by state.", ("run", "state"),
    ("waiting", "running", "complete", "pruned", "failed"),
)  # fmt: skip
BEST_OBJECTIVE = Metric("gpo_sweep_best_objective", Kind.GAUGE, "The best objective of a trial so far.", ("run",))

CATALOGUE: dict[str, Metric] = {
    metric.name: metric for metric in list(globals().values()) if isinstance(metric, Metric)
}
"""Name → metric, in the order above."""
