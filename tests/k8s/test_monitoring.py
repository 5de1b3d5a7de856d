"""The kustomization of ``k8s/monitoring``, with the rules and dashboards of that folder.

Kustomize cannot wrap a file of rules into an object, so ``GPO_WRITE_MONITORING=1 pytest tests/k8s/test_monitoring.py``
writes ``kustomization.yaml`` and ``prometheus-rule.yaml``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.conftest import K8S, build

FOLDER = K8S / "monitoring"
RULES, DASHBOARDS = FOLDER / "rules.yaml", sorted((FOLDER / "dashboards").glob("*.json"))
WRITTEN = {"kustomization.yaml": 0, "prometheus-rule.yaml": 1}


def _kustomization() -> dict[str, Any]:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "gpo",
        "resources": ["pod-monitor.yaml", *(["prometheus-rule.yaml"] if RULES.exists() else [])],
        "configMapGenerator": [
            {
                "name": f"gpo-dashboard-{path.stem}",
                "files": [f"dashboards/{path.name}"],
                "options": {"labels": {"grafana_dashboard": "1"}, "annotations": {"grafana_folder": "GPO"}},
            }
            for path in DASHBOARDS
        ],
        "generatorOptions": {"disableNameSuffixHash": True},
        "labels": [{"pairs": {"app.kubernetes.io/part-of": "gpo"}}],
    }


def _prometheus_rule() -> dict[str, Any] | None:
    if not RULES.exists():
        return None
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "gpo", "labels": {"release": "prometheus"}},
        "spec": yaml.safe_load(RULES.read_text(encoding="utf-8")),
    }


@pytest.mark.parametrize("name", WRITTEN)
def test_the_kustomization_has_the_rules_and_dashboards_of_its_folder(name: str) -> None:
    expected = (_kustomization(), _prometheus_rule())[WRITTEN[name]]
    path = FOLDER / name
    if "GPO_WRITE_MONITORING" in os.environ:
        _write(path, expected)
    assert (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) == expected


def _write(path: Path, document: dict[str, Any] | None) -> None:
    comment = "# For the Prometheus operator and a Grafana whose sidecar looks for labelled ConfigMaps. Written by\n"
    comment += "# GPO_WRITE_MONITORING=1 pytest tests/k8s/test_monitoring.py\n"
    if document is not None:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
        path.write_text(comment + text, encoding="utf-8")


def test_every_dashboard_has_the_label_that_grafana_looks_for() -> None:
    found = {
        name
        for item in build("monitoring")
        if item["kind"] == "ConfigMap" and item["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name in item["data"]
    }
    assert found == {path.name for path in DASHBOARDS}
