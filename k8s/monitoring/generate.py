"""The dashboards for Grafana, as code: ``python -m k8s.monitoring.generate`` writes ``dashboards/*.json`` anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from k8s.monitoring.panels import RUN, TASK, Asked, bars, curves, dashboard, distribution, figure, note

FOLDER = Path(__file__).parent / "dashboards"
_MODEL = RUN  # calls are told apart by task as well, but an endpoint is one for all


def overview() -> Dashboard:
    """How far runs are, and what they have found."""
    of = "{{task}} · {{seed}}"
    return (
        dashboard("gpo-runs", "GPO / Runs", "How far runs are, and what they have found.")
        .with_row(Row("Now"))
        .with_panel(figure("Runs at work", "", Asked(f"sum(gpo_run_active{{{RUN}}})")))
        .with_panel(
            figure("Steps done", "Of all that are planned.", Asked(
                f"sum(gpo_trajectory_steps{{{TASK}}}) / sum(gpo_trajectory_steps_planned{{{TASK}}})"
            ), unit="percentunit")
        )
        .with_panel(
            figure("Best score on val", "Mean over tasks of each task's best trajectory.", Asked(
                f'avg(max by (run, task) (gpo_trajectory_score_ratio{{{TASK}, prompt="best"}}))'
            ), unit="percentunit")
        )
        .with_panel(
            figure("Gain", "Over the initial prompts, likewise.", Asked(
                f'avg(max by (run, task) (gpo_trajectory_score_ratio{{{TASK}, prompt="best"}})'
                f' - max by (run, task) (gpo_trajectory_score_ratio{{{TASK}, prompt="initial"}}))'
            ), unit="percentunit")
        )
        .with_panel(figure("Cost", "In this sitting.", Asked(f"sum(gpo_model_cost_usd_total{{{RUN}}})"),
                           unit="currencyUSD"))
        .with_panel(figure("Budget left", "The scarcest of its bounds.", Asked(
            f"min(gpo_budget_left_ratio{{{RUN}}})"), unit="percentunit"))
        .with_panel(bars("Trajectories", "By what they are at.", Asked(
            f"sum by (phase) (gpo_trajectories{{{RUN}}})", "{{phase}}")))
        .with_panel(curves("Requests answered", "Per second, by role.", Asked(
            f'sum by (role) (rate(gpo_model_requests_total{{{_MODEL}, outcome="answered"}}[$__rate_interval]))',
            "{{role}}"), unit="reqps", per_row=3))
        .with_panel(bars("Best on test against the initial prompt", "Known at a trajectory's end.", Asked(
            f"max by (task, prompt) (gpo_trajectory_test_score_ratio{{{TASK}}})", "{{task}} · {{prompt}}"),
            unit="percentunit"))
        .with_row(Row("Search"))
        .with_panel(curves("Best score on val", "Of each trajectory.", Asked(
            f'gpo_trajectory_score_ratio{{{TASK}, prompt="best"}}', of), unit="percentunit"))
        .with_panel(curves("Current score on val", "Of the prompt that the next step starts from.", Asked(
            f'gpo_trajectory_score_ratio{{{TASK}, prompt="current"}}', of), unit="percentunit"))
        .with_panel(curves("Step size", "Words that may change.", Asked(
            f"avg by (task) (gpo_trajectory_step_size_words{{{TASK}}})", "{{task}}")))
        .with_panel(curves("Steps since the best prompt was found", "The trajectory of a task that did best lately.",
            Asked(f"min by (task) (gpo_trajectory_steps_since_improvement{{{TASK}}})", "{{task}}")))
        .with_panel(distribution("Candidates' scores", "On val; how many fall where.",
            f"sum by (le) (increase(gpo_candidate_score_ratio_bucket{{{TASK}}}[$__rate_interval]))",
            unit="percentunit"))
        .with_panel(distribution("Candidates' edit distances", "Words by which they differ from the prompt before.",
            f"sum by (le) (increase(gpo_candidate_edit_distance_words_bucket{{{TASK}}}[$__rate_interval]))"))
        .with_panel(curves("Replies for new prompts", "By what became of them.", Asked(
            f"sum by (fate) (increase(gpo_samples_total{{{TASK}}}[$__rate_interval]))", "{{fate}}"), stacked=True))
        .with_panel(curves("Steps", "Per minute.", Asked(
            f"sum by (task) (rate(gpo_steps_total{{{TASK}}}[$__rate_interval])) * 60", "{{task}}"), stacked=True))
    )  # fmt: skip


def endpoint() -> Dashboard:
    """How the language models behave, and what they cost."""
    by = "{{role}} · {{model}}"
    of_model = "role, model"

    def quantile(share: float, metric: str) -> Asked:
        inner = f"sum by ({of_model}, le) (rate({metric}_bucket{{{_MODEL}}}[$__rate_interval]))"
        return Asked(f"histogram_quantile({share}, {inner})", f"{by} · {share:.0%}")

    return (
        dashboard("gpo-endpoint", "GPO / Endpoint and cost", "How the language models behave, and what they cost.")
        .with_row(Row("Endpoint"))
        .with_panel(curves("Requests by outcome", "Per second; retries are requests of their own.", Asked(
            f"sum by (role, outcome) (rate(gpo_model_requests_total{{{_MODEL}}}[$__rate_interval]))",
            "{{role}} · {{outcome}}"), unit="reqps", stacked=True))
        .with_panel(curves("Failed requests", "Share of those that ended; too many at once (429) is not a failure.",
            Asked(f"gpo:model_requests_failed:ratio_rate5m{{{_MODEL}}}", by), unit="percentunit"))
        .with_panel(curves("Latency", "From sending a request to its answer.",
            quantile(0.5, "gpo_model_request_duration_seconds"), quantile(0.95, "gpo_model_request_duration_seconds"),
            unit="s"))
        .with_panel(curves("Wait for a turn", "Limits, rates, and pauses that the endpoint asked for.",
            quantile(0.5, "gpo_limiter_wait_seconds"), quantile(0.95, "gpo_limiter_wait_seconds"), unit="s"))
        .with_panel(curves("Requests under way and waiting", "All processes together.",
            Asked(f"sum by (role) (gpo_model_requests_in_flight{{{_MODEL}}})", "{{role}} under way"),
            Asked(f"sum by (role) (gpo_model_requests_waiting{{{_MODEL}}})", "{{role}} waiting")))
        .with_panel(curves("Retries, and calls given up", "Per second.",
            Asked(f"sum by ({of_model}) (rate(gpo_model_retries_total{{{_MODEL}}}[$__rate_interval]))",
                  f"{by} · retries"),
            Asked(f"sum by ({of_model}, reason) (rate(gpo_model_failures_total{{{_MODEL}}}[$__rate_interval]))",
                  f"{by} · {{{{reason}}}}"), unit="reqps"))
        .with_panel(curves("Flawed replies", "Per second: without text, cut off, or without their number of tokens.",
            Asked(f"sum by ({of_model}, flaw) (rate(gpo_model_flawed_replies_total{{{_MODEL}}}[$__rate_interval]))",
                  f"{by} · {{{{flaw}}}}"), unit="reqps"))
        .with_panel(curves("Examples of candidates", "Scored, and without a verdict since their calls failed.", Asked(
            f"sum by (outcome) (increase(gpo_examples_total{{{TASK}}}[$__rate_interval]))", "{{outcome}}"),
            stacked=True))
        .with_panel(curves("Found in the cache", "Share of repeatable calls.", Asked(
            f"gpo:cache_hits:ratio_rate5m{{{RUN}}}", "{{role}}"), unit="percentunit"))
        .with_row(Row("Cost"))
        .with_panel(figure("Cost", "In this sitting, by the configuration's prices.", Asked(
            f"sum(gpo_model_cost_usd_total{{{RUN}}})"), unit="currencyUSD", per_row=4))
        .with_panel(figure("Dollars an hour", "At the pace of the last hour.", Asked(
            f"sum(gpo:model_cost_usd:rate1h{{{RUN}}})"), unit="currencyUSD", per_row=4))
        .with_panel(figure("Requests answered", "", Asked(
            f'sum(gpo_model_requests_total{{{RUN}, outcome="answered"}})'), per_row=4))
        .with_panel(figure("Cancelled requests", "Nobody waited for the reply any more; the endpoint may have charged "
            "them.", Asked(f'sum(gpo_model_requests_total{{{RUN}, outcome="cancelled"}})'), per_row=4))
        .with_panel(curves("Tokens", "Per second.", Asked(
            f"sum by (role, kind) (rate(gpo_model_tokens_total{{{_MODEL}}}[$__rate_interval]))",
            "{{role}} · {{kind}}"), stacked=True, per_row=3))
        .with_panel(curves("Cost by task", "", Asked(
            f"sum by (task) (gpo_model_cost_usd_total{{{TASK}}})", "{{task}}"), unit="currencyUSD", stacked=True,
            per_row=3))
        .with_panel(curves("Budget left", "Of each of its bounds.", Asked(
            f"gpo_budget_left_ratio{{{RUN}}}", "{{run}} · {{budget}}"), unit="percentunit", per_row=3))
    )  # fmt: skip


def sweep() -> Dashboard:
    """Trials of a hyperparameter sweep."""
    return (
        dashboard("gpo-sweep", "GPO / Sweep", "Trials of a hyperparameter sweep. Empty for other runs.")
        .with_panel(figure("Best objective", "", Asked(f"max by (run) (gpo_sweep_best_objective{{{RUN}}})", "{{run}}"),
                           per_row=3))
        .with_panel(bars("Trials by state", "", Asked(f"max by (state) (gpo_trials{{{RUN}}})", "{{state}}")))
        .with_panel(figure("Cost", "", Asked(f"sum(gpo_model_cost_usd_total{{{RUN}}})"), unit="currencyUSD",
                           per_row=3))
        .with_panel(curves("Trials", "By state.", Asked(
            f"max by (state) (gpo_trials{{{RUN}}})", "{{state}}"), stacked=True))
        .with_panel(curves("Best objective", "", Asked(f"gpo_sweep_best_objective{{{RUN}}}", "{{run}}")))
    )  # fmt: skip


def processes() -> Dashboard:
    """The processes of runs on Ray and Serve."""
    return (
        dashboard("gpo-processes", "GPO / Ray and Serve", "The processes of runs on Ray and Serve.")
        .with_panel(figure("Processes alive", "", Asked(
            f"sum by (actor) (gpo_actors{{{RUN}}})", "{{actor}}"), per_row=2))
        .with_panel(figure("Processes that died", "Each is started anew, and goes on from the last checkpoints.", Asked(
            f"sum by (actor) (gpo_actor_deaths_total{{{RUN}}})", "{{actor}}"), per_row=2))
        .with_panel(curves("Processes alive", "", Asked(
            f"sum by (run, actor) (gpo_actors{{{RUN}}})", "{{run}} · {{actor}}"), stacked=True))
        .with_panel(curves("Checkpoints", "Written per minute.", Asked(
            f"sum by (task) (rate(gpo_checkpoints_total{{{TASK}}}[$__rate_interval])) * 60", "{{task}}"), stacked=True))
        .with_panel(curves("Since the last news of a trajectory", "Grows while a run stands still.", Asked(
            f"(time() - gpo_run_progress_timestamp_seconds{{{RUN}}}) * gpo_run_active{{{RUN}}}", "{{run}}"), unit="s"))
        .with_panel(curves("Scrapes", "How long reading all processes' counts takes.", Asked(
            'scrape_duration_seconds{job=~"(.*/)?gpo[^/]*"}', "{{instance}}"), unit="s"))
        .with_panel(note("Nodes, memory, and Serve's own figures", (
            "Ray and Serve export their own metrics (CPU and memory of nodes and actors, the object store, requests "
            "and queues of deployments), and Ray brings dashboards for them, which the links above open. Ray writes "
            "them to `/tmp/ray/session_latest/metrics/grafana/dashboards` on the head node when its dashboard runs; "
            "import them, or mount that folder where Grafana looks for dashboards. They are not repeated here."
        )))
    )  # fmt: skip


DASHBOARDS = {"runs": overview, "endpoint": endpoint, "sweep": sweep, "processes": processes}
"""File name → what makes it."""


def rendered(name: str) -> str:
    """The JSON of a dashboard, as Grafana imports it."""
    return json.dumps(DASHBOARDS[name]().build(), cls=JSONEncoder, sort_keys=True, indent=1) + "\n"


def main() -> int:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(rendered(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
