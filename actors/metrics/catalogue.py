"""Every metric that a run exports: name, type, help and labels. Nothing else may be exported, plotted or alerted on.

Names follow Prometheus: ``gpo_``, a base unit (seconds, ratio in [0, 1], words, usd), ``_total`` on counters. Labels
are bounded by the configuration: never a prompt, an answer or an error's text. Counters count this sitting of a run;
gauges state what is so, earlier sittings included.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.search import Phase
from gpo.events import Outcome


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
        values: of the last label, where they are known beforehand: each is exported from the start, at 0, so that the
            first increment is an increase.
        buckets: upper bounds of a histogram's, rising, without infinity.
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
        """How many numbers a series of it has; see ``actors.metrics.counts``."""
        return len(self.buckets) + 2 if self.buckets else 1


_LATENCIES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0)
_WAITS_S = (0.01, 0.1, 1.0, 5.0, 20.0, 60.0, 300.0)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_WORDS = (0.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 80.0, 120.0, 200.0)

_MODEL = ("run", "task", "role", "model")
_TASK = ("run", "task")
_TRAJECTORY = ("run", "task", "seed")

# Calls to models: told by every process that calls them.

REQUESTS = Metric(
    "gpo_model_requests_total", Kind.COUNTER, "HTTP requests to a model, retries included, by how they ended.",
    (*_MODEL, "outcome"), tuple(map(str, Outcome)),
)  # fmt: skip
RETRIES = Metric("gpo_model_retries_total", Kind.COUNTER, "Requests that repeat one which failed.", _MODEL)
FAILURES = Metric(
    "gpo_model_failures_total", Kind.COUNTER, "Calls given up, after their retries or at a final no.",
    (*_MODEL, "reason"), ("unavailable", "refused"),
)  # fmt: skip
TOKENS = Metric(
    "gpo_model_tokens_total", Kind.COUNTER, "Tokens of answered requests, as the endpoint counts them.",
    (*_MODEL, "kind"), ("prompt", "completion"),
)  # fmt: skip
FLAWS = Metric(
    "gpo_model_flawed_replies_total", Kind.COUNTER,
    "Answered requests whose reply had no text, was cut off, or came without the number of its tokens.",
    (*_MODEL, "flaw"), ("empty", "truncated", "unmetered"),
)  # fmt: skip
COST = Metric("gpo_model_cost_usd_total", Kind.COUNTER, "Dollars, by the prices in the configuration.", _MODEL)
DURATION = Metric(
    "gpo_model_request_duration_seconds", Kind.HISTOGRAM, "From sending a request to its answer; answered ones only.",
    ("run", "role", "model"), buckets=_LATENCIES_S,
)  # fmt: skip
WAIT = Metric(
    "gpo_limiter_wait_seconds", Kind.HISTOGRAM, "What a request waited for its turn: limits, rates, pauses.",
    ("run", "role", "model"), buckets=_WAITS_S,
)  # fmt: skip
IN_FLIGHT = Metric("gpo_model_requests_in_flight", Kind.GAUGE, "Requests under way.", _MODEL)
WAITING = Metric("gpo_model_requests_waiting", Kind.GAUGE, "Requests that wait for their turn.", _MODEL)
CACHE = Metric(
    "gpo_cache_lookups_total", Kind.COUNTER, "Repeatable calls, by whether a completion was there or had to be made.",
    ("run", "task", "role", "result"), ("hit", "miss"),
)  # fmt: skip
CHECKPOINTS = Metric("gpo_checkpoints_total", Kind.COUNTER, "Checkpoints written.", _TASK)

# The searches: told by the driver, from the checkpoints that its actors send.

STEPS = Metric("gpo_steps_total", Kind.COUNTER, "Steps taken in this sitting.", _TRAJECTORY)
STEPS_DONE = Metric("gpo_trajectory_steps", Kind.GAUGE, "Steps taken in all sittings.", _TRAJECTORY)
STEPS_PLANNED = Metric("gpo_trajectory_steps_planned", Kind.GAUGE, "Steps of the whole search.", _TRAJECTORY)
STALE_STEPS = Metric(
    "gpo_trajectory_steps_since_improvement", Kind.GAUGE, "Steps since the best prompt was found.", _TRAJECTORY
)
SCORE = Metric(
    "gpo_trajectory_score_ratio", Kind.GAUGE, "Mean score on val of the initial, the current and the best prompt.",
    (*_TRAJECTORY, "prompt"),
)  # fmt: skip
TEST_SCORE = Metric(
    "gpo_trajectory_test_score_ratio", Kind.GAUGE, "Mean score on test of the initial and the best prompt, at the end.",
    (*_TRAJECTORY, "prompt"),
)  # fmt: skip
STEP_SIZE = Metric(
    "gpo_trajectory_step_size_words", Kind.GAUGE, "Words that may change, in the last step; none is no bound.",
    _TRAJECTORY,
)  # fmt: skip
CANDIDATE_SCORE = Metric(
    "gpo_candidate_score_ratio", Kind.HISTOGRAM, "Mean scores on val of the candidates.", _TASK, buckets=_RATIOS
)
EDIT_DISTANCE = Metric(
    "gpo_candidate_edit_distance_words", Kind.HISTOGRAM, "Words by which candidates differ from the prompt before.",
    _TASK, buckets=_WORDS,
)  # fmt: skip
SAMPLES = Metric(
    "gpo_samples_total", Kind.COUNTER, "Replies bought for new prompts, by what became of them.", (*_TASK, "fate"),
    ("scored", "dropped", "malformed", "rejected", "repeated", "failed"),
)  # fmt: skip
EXAMPLES = Metric(
    "gpo_examples_total", Kind.COUNTER, "Examples on which candidates were to be scored.", (*_TASK, "outcome"),
    ("scored", "unscored"),
)  # fmt: skip

# The run.

RUN_ACTIVE = Metric("gpo_run_active", Kind.GAUGE, "1 while the run works, 0 once it is over.", ("run",))
RUN_STARTED = Metric(
    "gpo_run_start_timestamp_seconds", Kind.GAUGE, "When this sitting began, since 1970.", ("run",)
)  # fmt: skip
RUN_PROGRESS = Metric(
    "gpo_run_progress_timestamp_seconds", Kind.GAUGE, "When a trajectory last had news, since 1970.", ("run",)
)
TRAJECTORIES = Metric(
    "gpo_trajectories", Kind.GAUGE, "Trajectories by what they are at.", ("run", "phase"),
    (*map(str, Phase), "failed"),
)  # fmt: skip
BUDGET_LEFT = Metric(
    "gpo_budget_left_ratio", Kind.GAUGE, "What is left of a bound of the budget, as a share of it.", ("run", "budget")
)
ACTORS = Metric("gpo_actors", Kind.GAUGE, "Processes of the run that are alive.", ("run", "actor"))
ACTOR_DEATHS = Metric(
    "gpo_actor_deaths_total", Kind.COUNTER, "Processes of the run that died; each is started anew.", ("run", "actor")
)

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


def exposed_names() -> frozenset[str]:
    """Every name of a series that a query may ask for."""
    return frozenset(name for metric in CATALOGUE.values() for name in metric.exposed)
