"""The Grafana dashboards as code: ``python -m k8s.monitoring.generate_dashboards`` writes ``dashboards/*.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from k8s.monitoring.panels import RUN, TASK, Query, bars, curves, dashboard, distribution, figure, note

FOLDER = Path(__file__).parent / "dashboards"
_MODEL = RUN  # not by task, although calls have that label: all tasks share the endpoints


def overview() -> Dashboard:
    """Progress and results of runs."""
    of = "{{task}} · {{seed}}"
    return (
        dashboard("gpo-runs", "GPO / Runs", "Progress and results of runs.")
        .with_row(Row("Now"))
        .with_panel(figure("Active runs", "", Query(f"sum(gpo_run_active{{{RUN}}})")))
        .with_panel(
            figure("Steps done", "Share of the planned steps.", Query(
                f"sum(gpo_trajectory_steps{{{TASK}}}) / sum(gpo_trajectory_steps_planned{{{TASK}}})"
            ), unit="percentunit")
        )
        .with_panel(
            figure("Best score on val", "Of the best trajectory of each task; mean over tasks.", Query(
                f'avg(max by (run, task) (gpo_trajectory_score_ratio{{{TASK}, prompt="best"}}))'
            ), unit="percentunit")
        )
        .with_panel(
            figure("Gain", "Of that score over the initial prompts.", Query(
                f'avg(max by (run, task) (gpo_trajectory_score_ratio{{{TASK}, prompt="best"}})'
                f' - max by (run, task) (gpo_trajectory_score_ratio{{{TASK}, prompt="initial"}}))'
            ), unit="percentunit")
        )
        .with_panel(figure("Cost", "Of this attempt of the run.", Query(f"sum(gpo_model_cost_usd_total{{{RUN}}})"),
                           unit="currencyUSD"))
        .with_panel(figure("Budget left", "Of the bound that is closest.", Query(
            f"min(gpo_budget_left_ratio{{{RUN}}})"), unit="percentunit"))
        .with_panel(bars("Trajectories", "By phase.", Query(
            f"sum by (phase) (gpo_trajectories{{{RUN}}})", "{{phase}}")))
        .with_panel(curves("Requests answered", "Per second, by role.", Query(
            f'sum by (role) (rate(gpo_model_requests_total{{{_MODEL}, outcome="answered"}}[$__rate_interval]))',
            "{{role}}"), unit="reqps", per_row=3))
        .with_panel(bars("Best against initial prompt on test", "Known when a trajectory ends.", Query(
            f"max by (task, prompt) (gpo_trajectory_test_score_ratio{{{TASK}}})", "{{task}} · {{prompt}}"),
            unit="percentunit"))
        .with_row(Row("Search"))
        .with_panel(curves("Best score on val", "Of each trajectory.", Query(
            f'gpo_trajectory_score_ratio{{{TASK}, prompt="best"}}', of), unit="percentunit"))
        .with_panel(curves("Current score on val", "Of the prompt that each trajectory continues from.", Query(
            f'gpo_trajectory_score_ratio{{{TASK}, prompt="current"}}', of), unit="percentunit"))
        .with_panel(curves("Step size", "Words that a step may change.", Query(
            f"avg by (task) (gpo_trajectory_step_size_words{{{TASK}}})", "{{task}}")))
        .with_panel(curves("Steps since the best prompt was found", "Of the latest improvement of each task.",
            Query(f"min by (task) (gpo_trajectory_steps_since_improvement{{{TASK}}})", "{{task}}")))
        .with_panel(distribution("Scores of candidates", "On val; number of candidates in each range.",
            f"sum by (le) (increase(gpo_candidate_score_ratio_bucket{{{TASK}}}[$__rate_interval]))",
            unit="percentunit"))
        .with_panel(distribution("Edit distances of candidates", "Words by which they differ from the current prompt.",
            f"sum by (le) (increase(gpo_candidate_edit_distance_words_bucket{{{TASK}}}[$__rate_interval]))"))
        .with_panel(curves("Replies with new prompts", "By outcome.", Query(
            f"sum by (fate) (increase(gpo_samples_total{{{TASK}}}[$__rate_interval]))", "{{fate}}"), stacked=True))
        .with_panel(curves("Steps", "Per minute.", Query(
            f"sum by (task) (rate(gpo_steps_total{{{TASK}}}[$__rate_interval])) * 60", "{{task}}"), stacked=True))
    )  # fmt: skip


def endpoint() -> Dashboard:
    """Behaviour and cost of the language models."""
    by = "{{role}} · {{model}}"
    of_model = "role, model"

    def quantile(share: float, metric: str) -> Query:
        inner = f"sum by ({of_model}, le) (rate({metric}_bucket{{{_MODEL}}}[$__rate_interval]))"
        return Query(f"histogram_quantile({share}, {inner})", f"{by} · {share:.0%}")

    return (
        dashboard("gpo-endpoint", "GPO / Endpoint and cost", "Behaviour and cost of the language models.")
        .with_row(Row("Endpoint"))
        .with_panel(curves("Requests by outcome", "Per second; each retry is a request.", Query(
            f"sum by (role, outcome) (rate(gpo_model_requests_total{{{_MODEL}}}[$__rate_interval]))",
            "{{role}} · {{outcome}}"), unit="reqps", stacked=True))
        .with_panel(curves("Failed requests", "Share of all that ended; too many at once (429) is no failure.",
            Query(f"gpo:model_requests_failed:ratio_rate5m{{{_MODEL}}}", by), unit="percentunit"))
        .with_panel(curves("Latency", "Time from sending a request to its answer.",
            quantile(0.5, "gpo_model_request_duration_seconds"), quantile(0.95, "gpo_model_request_duration_seconds"),
            unit="s"))
        .with_panel(curves("Wait for a permit", "Due to limits, rates, and pauses that the endpoint asked for.",
            quantile(0.5, "gpo_limiter_wait_seconds"), quantile(0.95, "gpo_limiter_wait_seconds"), unit="s"))
        .with_panel(curves("Requests in flight and waiting", "Of all processes.",
            Query(f"sum by (role) (gpo_model_requests_in_flight{{{_MODEL}}})", "{{role}} in flight"),
            Query(f"sum by (role) (gpo_model_requests_waiting{{{_MODEL}}})", "{{role}} waiting")))
        .with_panel(curves("Retries, and calls given up", "Per second.",
            Query(f"sum by ({of_model}) (rate(gpo_model_retries_total{{{_MODEL}}}[$__rate_interval]))",
                  f"{by} · retries"),
            Query(f"sum by ({of_model}, reason) (rate(gpo_model_failures_total{{{_MODEL}}}[$__rate_interval]))",
                  f"{by} · {{{{reason}}}}"), unit="reqps"))
        .with_panel(curves("Flawed replies", "Per second: without text, cut off, or without token counts.",
            Query(f"sum by ({of_model}, flaw) (rate(gpo_model_flawed_replies_total{{{_MODEL}}}[$__rate_interval]))",
                  f"{by} · {{{{flaw}}}}"), unit="reqps"))
        .with_panel(curves("Examples of candidates", "Scored, and unscored because their calls failed.", Query(
            f"sum by (outcome) (increase(gpo_examples_total{{{TASK}}}[$__rate_interval]))", "{{outcome}}"),
            stacked=True))
        .with_panel(curves("Cache hits", "Share of repeatable calls.", Query(
            f"gpo:cache_hits:ratio_rate5m{{{RUN}}}", "{{role}}"), unit="percentunit"))
        .with_row(Row("Cost"))
        .with_panel(figure("Cost", "Of this attempt, by the prices in the configuration.", Query(
            f"sum(gpo_model_cost_usd_total{{{RUN}}})"), unit="currencyUSD", per_row=4))
        .with_panel(figure("Dollars an hour", "At the pace of the last hour.", Query(
            f"sum(gpo:model_cost_usd:rate1h{{{RUN}}})"), unit="currencyUSD", per_row=4))
        .with_panel(figure("Requests answered", "", Query(
            f'sum(gpo_model_requests_total{{{RUN}, outcome="answered"}})'), per_row=4))
        .with_panel(figure("Cancelled requests", "Their caller gave up before the reply; the endpoint may have "
            "charged them.", Query(f'sum(gpo_model_requests_total{{{RUN}, outcome="cancelled"}})'), per_row=4))
        .with_panel(curves("Tokens", "Per second.", Query(
            f"sum by (role, kind) (rate(gpo_model_tokens_total{{{_MODEL}}}[$__rate_interval]))",
            "{{role}} · {{kind}}"), stacked=True, per_row=3))
        .with_panel(curves("Cost by task", "", Query(
            f"sum by (task) (gpo_model_cost_usd_total{{{TASK}}})", "{{task}}"), unit="currencyUSD", stacked=True,
            per_row=3))
        .with_panel(curves("Budget left", "Of each bound.", Query(
            f"gpo_budget_left_ratio{{{RUN}}}", "{{run}} · {{budget}}"), unit="percentunit", per_row=3))
    )  # fmt: skip


def sweep() -> Dashboard:
    """Trials of a hyperparameter sweep."""
    return (
        dashboard("gpo-sweep", "GPO / Sweep", "Trials of a hyperparameter sweep. Empty for other runs.")
        .with_panel(figure("Best objective", "", Query(f"max by (run) (gpo_sweep_best_objective{{{RUN}}})", "{{run}}"),
                           per_row=3))
        .with_panel(bars("Trials by state", "", Query(f"max by (state) (gpo_trials{{{RUN}}})", "{{state}}")))
        .with_panel(figure("Cost", "", Query(f"sum(gpo_model_cost_usd_total{{{RUN}}})"), unit="currencyUSD",
                           per_row=3))
        .with_panel(curves("Trials", "By state.", Query(
            f"max by (state) (gpo_trials{{{RUN}}})", "{{state}}"), stacked=True))
        .with_panel(curves("Best objective", "", Query(f"gpo_sweep_best_objective{{{RUN}}}", "{{run}}")))
    )  # fmt: skip


def processes() -> Dashboard:
    """Processes of runs on Ray and Serve."""
    return (
        dashboard("gpo-processes", "GPO / Ray and Serve", "Processes of runs on Ray and Serve.")
        .with_panel(figure("Live processes", "", Query(
            f"sum by (actor) (gpo_actors{{{RUN}}})", "{{actor}}"), per_row=2))
        .with_panel(figure("Processes that died", "Each is restarted and continues from the last checkpoints.", Query(
            f"sum by (actor) (gpo_actor_deaths_total{{{RUN}}})", "{{actor}}"), per_row=2))
        .with_panel(curves("Live processes", "", Query(
            f"sum by (run, actor) (gpo_actors{{{RUN}}})", "{{run}} · {{actor}}"), stacked=True))
        .with_panel(curves("Checkpoints", "Written per minute.", Query(
            f"sum by (task) (rate(gpo_checkpoints_total{{{TASK}}}[$__rate_interval])) * 60", "{{task}}"), stacked=True))
        .with_panel(curves("Time since the last update of a trajectory", "Grows while a run makes no progress.", Query(
            f"(time() - gpo_run_progress_timestamp_seconds{{{RUN}}}) * gpo_run_active{{{RUN}}}", "{{run}}"), unit="s"))
        .with_panel(curves("Scrapes", "Time that a scrape takes.", Query(
            'scrape_duration_seconds{job=~"(.*/)?gpo[^/]*"}', "{{instance}}"), unit="s"))
        .with_panel(note("Nodes, memory, and metrics of Serve", (
            "Ray and Serve export metrics of their own (CPU and memory of nodes and actors, the object store, requests "
            "and queues of deployments). The links above open Ray's dashboards for them. When Ray's dashboard runs, "
            "it writes them to `/tmp/ray/session_latest/metrics/grafana/dashboards` on the head node: import them, "
            "or mount that folder where Grafana looks for dashboards."
        )))
    )  # fmt: skip


DASHBOARDS = {"runs": overview, "endpoint": endpoint, "sweep": sweep, "processes": processes}
"""File name → the function that builds it."""


def rendered(name: str) -> str:
    """The JSON of a dashboard that Grafana imports."""
    return json.dumps(DASHBOARDS[name]().build(), cls=JSONEncoder, sort_keys=True, indent=1) + "\n"


def main() -> int:
    """Write all dashboards."""
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(rendered(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
