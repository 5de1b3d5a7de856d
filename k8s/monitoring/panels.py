"""Panels, variables and annotations of the dashboards, built with ``grafana-foundation-sdk``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, heatmap, stat, text, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import DataSourceRef, LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

TAG = "gpo"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WIDTH = 24
RUN = 'namespace=~"$namespace", run=~"$run"'
TASK = f'{RUN}, task=~"$task"'


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL that may use the variables of the dashboard.
        legend: of each series; labels in double braces.
    """

    expr: str
    legend: str = ""


def curves(
    title: str, description: str, *queries: Query, unit: str = "short", per_row: int = 2, stacked: bool = False
) -> Any:
    """Values over time."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = timeseries.Panel().legend(legend.show_legend(True)).fill_opacity(30 if stacked else 5)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if unit == "percentunit":
        panel.min(0).max(1)
    return _framed(panel, title, description, unit, _WIDTH // per_row, 8, [_range(query) for query in queries])


def figure(title: str, description: str, query: Query, *, unit: str = "short", per_row: int = 6) -> Any:
    """The last value of each series."""
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = stat.Panel().reduce_options(reduced)
    return _framed(panel, title, description, unit, _WIDTH // per_row, 4, [_range(query)])


def bars(title: str, description: str, query: Query, *, unit: str = "short", per_row: int = 3) -> Any:
    """The last value of each series, as bars."""
    panel = bargauge.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if unit == "percentunit":
        panel.min(0).max(1)
    return _framed(panel, title, description, unit, _WIDTH // per_row, 8, [_range(query)])


def distribution(title: str, description: str, expr: str, *, unit: str = "short", per_row: int = 2) -> Any:
    """A histogram over time; ``expr`` returns its buckets by ``le``."""
    query = Dataquery().expr(expr).format(PromQueryFormat.HEATMAP).legend_format("{{le}}").range()
    return _framed(heatmap.Panel(), title, description, unit, _WIDTH // per_row, 8, [query])


def note(title: str, content: str, *, height: int = 6) -> Any:
    """Markdown text."""
    return text.Panel().title(title).mode(TextMode.MARKDOWN).content(content).span(_WIDTH).height(height)


def _range(query: Query) -> Dataquery:
    return Dataquery().expr(query.expr).legend_format(query.legend).range()


def _framed(panel: Any, title: str, description: str, unit: str, width: int, height: int, queries: list[Any]) -> Any:
    panel.title(title).description(description).datasource(_SOURCE).unit(unit).span(width).height(height)
    for number, query in enumerate(queries):
        panel.with_target(query.datasource(_SOURCE).ref_id(chr(ord("A") + number)))
    return panel


def dashboard(uid: str, title: str, description: str) -> Dashboard:
    """A dashboard without panels, with the variables, links and annotations that all dashboards share."""
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .editable()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .variables([_datasource(), *_variables()])
        .links([_link_to_dashboards(), *_links_to_ray()])
        .annotations([*_annotations()])
    )


def _datasource() -> DatasourceVariable:
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def _variables() -> list[QueryVariable]:
    of_run = "gpo_run_start_timestamp_seconds"
    return [
        _variable("namespace", "Namespace", f"label_values({of_run}, namespace)"),
        _variable("run", "Run", f'label_values({of_run}{{namespace=~"$namespace"}}, run)'),
        _variable("task", "Task", f"label_values(gpo_trajectory_steps_planned{{{RUN}}}, task)"),
    ]


def _variable(name: str, label: str, query: str) -> QueryVariable:
    # ".*" also matches series without the label: not every Prometheus adds a namespace.
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _link_to_dashboards() -> DashboardLink:
    link = DashboardLink("GPO").type(models.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
    return link.include_vars(True).keep_time(True)


def _links_to_ray() -> list[DashboardLink]:
    dashboards = {"Ray": "rayDefaultDashboard", "Ray Serve": "rayServeDashboard"}
    return [
        DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .icon("external link")
        .tooltip("Ray writes it to /tmp/ray/session_latest/metrics/grafana/dashboards on the head node")
        .url(f"/d/{uid}")
        .keep_time(True)
        .target_blank(True)
        for title, uid in dashboards.items()
    ]


def _annotations() -> list[AnnotationQuery]:
    return [
        _annotation(
            "Run starts", "green", f"gpo_run_start_timestamp_seconds{{{RUN}}} * 1000", "{{run}} starts"
        ).use_value_for_time(True),
        _annotation("Run ends", "blue", f"changes(gpo_run_active{{{RUN}}}[$__interval]) > 0", "{{run}} ends"),
        _annotation(
            "Process dies",
            "red",
            f"sum by (run, actor) (increase(gpo_actor_deaths_total{{{RUN}}}[$__interval])) > 0",
            "{{actor}} of {{run}} died",
        ),
    ]


def _annotation(name: str, color: str, expr: str, title: str) -> AnnotationQuery:
    return (
        AnnotationQuery().name(name).datasource(_SOURCE).enable(True).icon_color(color).expr(expr).title_format(title)
    )
