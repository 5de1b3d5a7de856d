from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.k8s.conftest import BUILT, K8S, PLATFORM, build, named
from tests.k8s.pods import PodTemplate, pod_templates, violations

_MADE_BY_USERS = {("Secret", "gpo-study"), ("Secret", "gpo-hub-token")}
"""The objects that an overlay asks its user to create."""


def _pods(folder: str) -> list[PodTemplate]:
    return [pod for item in build(folder) for pod in pod_templates(item)]


@pytest.mark.parametrize("folder", BUILT)
def test_every_pod_passes_the_restricted_level(folder: str) -> None:
    assert [finding for pod in _pods(folder) for finding in violations(pod)] == []


@pytest.mark.parametrize(
    "loosen",
    [
        lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
        lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
        lambda pod: pod["containers"][0]["securityContext"].update(
            capabilities={"add": ["SYS_PTRACE"], "drop": ["ALL"]}
        ),
        lambda pod: pod["securityContext"]["seccompProfile"].update(type="Unconfined"),
        lambda pod: pod["securityContext"].update(runAsUser=0),
        lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod["containers"][1].pop("securityContext"),  # of the autoscaler
    ],
    ids=["privileged", "escalation", "capability", "unconfined", "root", "host path", "host network", "autoscaler"],
)
def test_a_violation_is_found(loosen: Callable[[dict[str, Any]], object]) -> None:
    (head,) = [pod for pod in _pods("base/run") if pod.path.endswith("headGroupSpec.template")]
    spec = copy.deepcopy(head.spec)
    loosen(spec)
    assert violations(PodTemplate(head.path, head.metadata, spec))


@pytest.mark.parametrize("folder", BUILT)
def test_every_container_has_resources_and_probes(folder: str) -> None:
    for pod in _pods(folder):
        for container in pod.containers:
            where = f"{pod.path} {container['name']}"
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), where
            if container["name"] in ("ray-head", "ray-worker", "redis"):
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), where


@pytest.mark.parametrize("folder", BUILT)
def test_only_a_head_that_scales_has_a_token_for_the_api(folder: str) -> None:
    for pod in _pods(folder):
        scales = any(container["name"] == "autoscaler" for container in pod.containers)
        assert pod.spec["automountServiceAccountToken"] is scales, pod.path


@pytest.mark.parametrize("folder", BUILT)
def test_images_have_versions(folder: str) -> None:
    for pod in _pods(folder):
        for container in pod.containers:
            if container["name"] != "autoscaler":  # it has the head's image
                _, _, tag = container["image"].rpartition("/")[2].partition(":")
                assert tag not in ("", "latest"), f"{pod.path} {container['image']}"


@pytest.mark.parametrize("folder", BUILT)
def test_every_reference_has_its_object(folder: str) -> None:
    template = yaml.safe_load_all((K8S / "secrets.template.yaml").read_text(encoding="utf-8"))
    objects = [*build(folder), *build(PLATFORM), *template]
    there = {(item["kind"], item["metadata"]["name"]) for item in objects} | _MADE_BY_USERS
    missing = [
        (pod.path, reference) for pod in _pods(folder) for reference in _references(pod.spec) if reference not in there
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
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, pod.path


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


def test_every_monitored_port_exists() -> None:
    watched = {end["port"] for end in named(build("monitoring"), "PodMonitor")["spec"]["podMetricsEndpoints"]}
    heads = [pod for pod in _pods("base") if pod.metadata.get("labels", {}).get("gpo-node") == "head"]
    runs = [pod for pod in heads if pod.metadata["labels"]["app.kubernetes.io/component"] != "evaluator"]
    assert 0 < len(runs) < len(heads)
    for pod in heads:
        ports = {port["name"]: port["containerPort"] for one in pod.containers for port in one.get("ports", ())}
        # The evaluator has no run, and nothing listens at that port.
        assert watched - set(ports) == (set() if pod in runs else {"gpo-metrics"}), pod.path
        stays = pod.metadata["labels"]["app.kubernetes.io/component"] == "shared"
        assert ports.get("gpo-metrics", 9464) == (9465 if stays else 9464)
