from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.k8s.conftest import BUILT, K8S, PLATFORM, build, named
from tests.k8s.pods import PodTemplate, pod_templates, violations

_MADE_ELSEWHERE = {("Secret", "gpo-study"), ("Secret", "gpo-hub-token")}
"""What an overlay asks the user for."""


def _pods(folder: str) -> list[PodTemplate]:
    return [pod for item in build(folder) for pod in pod_templates(item)]


@pytest.mark.parametrize("folder", BUILT)
def test_every_pod_passes_the_restricted_level(folder: str) -> None:
    assert [finding for pod in _pods(folder) for finding in violations(pod)] == []


def _privileged(pod: dict[str, Any]) -> None:
    pod["containers"][0]["securityContext"]["privileged"] = True


def _escalating(pod: dict[str, Any]) -> None:
    del pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"]


def _capable(pod: dict[str, Any]) -> None:
    pod["containers"][0]["securityContext"]["capabilities"] = {"add": ["SYS_PTRACE"], "drop": ["ALL"]}


def _unconfined(pod: dict[str, Any]) -> None:
    pod["securityContext"]["seccompProfile"]["type"] = "Unconfined"


def _root(pod: dict[str, Any]) -> None:
    pod["securityContext"]["runAsUser"] = 0


def _host_path(pod: dict[str, Any]) -> None:
    pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}})


def _host_network(pod: dict[str, Any]) -> None:
    pod["hostNetwork"] = True


def _open_autoscaler(pod: dict[str, Any]) -> None:
    del pod["containers"][1]["securityContext"]


@pytest.mark.parametrize(
    "loosen",
    [_privileged, _escalating, _capable, _unconfined, _root, _host_path, _host_network, _open_autoscaler],
)
def test_a_loose_pod_is_found(loosen: Callable[[dict[str, Any]], None]) -> None:
    (head,) = [pod for pod in _pods("base/run") if pod.place.endswith("headGroupSpec.template")]
    spec = copy.deepcopy(head.spec)
    loosen(spec)
    assert violations(PodTemplate(head.place, head.metadata, spec))


@pytest.mark.parametrize("folder", BUILT)
def test_every_container_says_what_it_takes_and_whether_it_lives(folder: str) -> None:
    for pod in _pods(folder):
        for container in pod.containers:
            where = f"{pod.place} {container['name']}"
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), where
            if container["name"] in ("ray-head", "ray-worker", "redis"):
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), where


@pytest.mark.parametrize("folder", BUILT)
def test_no_pod_is_given_rights_that_it_has_no_use_for(folder: str) -> None:
    for pod in _pods(folder):
        scales = any(container["name"] == "autoscaler" for container in pod.containers)
        assert pod.spec["automountServiceAccountToken"] is scales, pod.place


@pytest.mark.parametrize("folder", BUILT)
def test_images_have_versions(folder: str) -> None:
    for pod in _pods(folder):
        for container in pod.containers:
            if container["name"] != "autoscaler":  # takes the head's
                _, _, tag = container["image"].rpartition("/")[2].partition(":")
                assert tag not in ("", "latest"), f"{pod.place} {container['image']}"


@pytest.mark.parametrize("folder", BUILT)
def test_what_is_referred_to_is_there(folder: str) -> None:
    template = yaml.safe_load_all((K8S / "secrets.template.yaml").read_text(encoding="utf-8"))
    objects = [*build(folder), *build(PLATFORM), *template]
    there = {(item["kind"], item["metadata"]["name"]) for item in objects} | _MADE_ELSEWHERE
    missing = [
        (pod.place, reference) for pod in _pods(folder) for reference in _references(pod.spec) if reference not in there
    ]
    assert missing == []


def _references(value: Any) -> set[tuple[str, str]]:
    found = set()
    if isinstance(value, list):
        found = {reference for below in value for reference in _references(below)}
    elif isinstance(value, dict):
        for key, below in value.items():
            if key in ("secretKeyRef", "secretRef"):
                found.add(("Secret", below["name"]))
            elif key in ("configMapKeyRef", "configMapRef", "configMap"):
                found.add(("ConfigMap", below["name"]))
            elif key == "secret":
                found.add(("Secret", below["secretName"]))
            elif key == "persistentVolumeClaim":
                found.add(("PersistentVolumeClaim", below["claimName"]))
            elif key == "serviceAccountName":
                found.add(("ServiceAccount", below))
            else:
                found |= _references(below)
    return found


@pytest.mark.parametrize("folder", BUILT)
def test_every_mount_has_its_volume(folder: str) -> None:
    for pod in _pods(folder):
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])} | {"data"}
        for container in pod.containers:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, pod.place


@pytest.mark.parametrize("folder", BUILT)
def test_disruption_budgets_and_services_select_pods(folder: str) -> None:
    objects = build(folder)
    labels = [pod.metadata.get("labels", {}) for pod in _pods(folder)]
    for item in objects:
        if item["kind"] not in ("PodDisruptionBudget", "Service"):
            continue
        selector = item["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= of_pod.items() for of_pod in labels), item["metadata"]["name"]


def test_ports_that_are_watched_are_there() -> None:
    watched = {end["port"] for end in named(build("monitoring"), "PodMonitor")["spec"]["podMetricsEndpoints"]}
    heads = [pod for pod in _pods("base") if pod.metadata.get("labels", {}).get("gpo-node") == "head"]
    runs = [pod for pod in heads if pod.metadata["labels"]["app.kubernetes.io/component"] != "evaluator"]
    assert 0 < len(runs) < len(heads)
    for pod in heads:
        ports = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0]["ports"]}
        # Nothing listens there where no run is.
        assert watched - set(ports) == (set() if pod in runs else {"gpo-metrics"}), pod.place
        assert ports.get("gpo-metrics", 9464) == 9464
