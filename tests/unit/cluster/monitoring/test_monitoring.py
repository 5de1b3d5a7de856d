"""Dashboards and rules are up to date and valid, and use only metrics that the code exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.metrics.catalogue import CATALOGUE
from cluster.monitoring.monitor import scrape_config
from k8s.monitoring.generate_dashboards import DASHBOARDS, FOLDER, rendered

MONITORING = FOLDER.parent
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))
NOT_OURS = {"up", "scrape_duration_seconds"}
"""Added by Prometheus for each target."""
_NAME = re.compile(r"\b(?:gpo[a-z0-9_:]*|up|scrape_[a-z_]+)\b(?=[\s{\[),*]|$)")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's package prometheus")


def _rules() -> Iterator[dict[str, Any]]:
    for group in RULES["groups"]:
        yield from group["rules"]


def _known() -> set[str]:
    series = {name for metric in CATALOGUE.values() for name in metric.exposed}
    return series | NOT_OURS | {rule["record"] for rule in _rules() if "record" in rule}


def _queries(document: Any) -> Iterator[str]:
    """Every query in a dashboard: of panels, annotations and variables."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "expr" or (name == "query" and isinstance(value, str) and "(" in value):
                yield value
            else:
                yield from _queries(value)
    elif isinstance(document, list):
        for value in document:
            yield from _queries(value)


def _metrics_of(query: str) -> set[str]:
    # Label values may look like metric names.
    bare = re.sub(r'"[^"]*"', '""', query)
    return set(_NAME.findall(bare)) | set(re.findall(r"\bgpo[a-z0-9_:]*(?=\{)", bare))


def _document(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def test_the_dashboard_files_are_up_to_date() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(DASHBOARDS)
    for name in DASHBOARDS:
        current = (FOLDER / f"{name}.json").read_text(encoding="utf-8") == rendered(name)
        assert current, f"{name}.json is stale: python -m k8s.monitoring.generate_dashboards"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_sdk_reads_each_dashboard_unchanged(name: str) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    document = _document(name)
    assert json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder)) == document


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_variables_links_and_annotations(name: str) -> None:
    document = _document(name)
    assert [one["name"] for one in document["templating"]["list"]] == ["datasource", "namespace", "run", "task"]
    assert [one["title"] for one in document["links"]] == ["GPO", "Ray", "Ray Serve"]
    assert [one["name"] for one in document["annotations"]["list"]] == ["Run starts", "Run ends", "Process dies"]
    panels = [panel for panel in document["panels"] if panel["type"] not in ("row", "text")]
    assert panels
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    # No panel overlaps another.
    squares = [
        (x, y)
        for place in (panel["gridPos"] for panel in document["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(squares) == len(set(squares))


def test_dashboards_query_only_exported_metrics() -> None:
    for name in DASHBOARDS:
        for query in _queries(_document(name)):
            assert _metrics_of(query), query
            assert _metrics_of(query) <= _known(), query


def test_rules_query_only_exported_metrics() -> None:
    for rule in _rules():
        assert _metrics_of(rule["expr"]), rule
        assert _metrics_of(rule["expr"]) <= _known(), rule


def test_every_exported_metric_is_in_a_dashboard_or_a_rule() -> None:
    asked = {name for one in DASHBOARDS for query in _queries(_document(one)) for name in _metrics_of(query)}
    asked |= {name for rule in _rules() for name in _metrics_of(rule["expr"])}
    assert [name for name, metric in CATALOGUE.items() if not asked & set(metric.exposed)] == []


def test_every_alert_says_what_to_do() -> None:
    alerts = [rule for rule in _rules() if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == {
        "GpoRunStalled", "GpoEndpointFailing", "GpoBudgetNearlySpent", "GpoNoImprovement", "GpoActorRestartLoop",
        "GpoExporterDown", "GpoRunVanished",
    }  # fmt: skip
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert {"summary", "description"} == set(rule["annotations"])
    tested = yaml.safe_load((MONITORING / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    fired = {test["alertname"] for one in tested for test in one.get("alert_rule_test", []) if test["exp_alerts"]}
    assert fired == {rule["alert"] for rule in alerts}


def _promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_accepts_the_rules() -> None:
    _promtool("check", "rules", MONITORING / "rules.yaml")
    _promtool("test", "rules", MONITORING / "rules_test.yaml")


@needs_promtool
@pytest.mark.parametrize("run", [None, "triage-20260101-000000-abcd"])
def test_prometheus_accepts_the_configuration_of_gpo_monitor(
    run: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(scrape_config(run)), encoding="utf-8")
    _promtool("check", "config", config)
    assert str(MONITORING / "rules.yaml") in config.read_text(encoding="utf-8")
