"""What a real cluster asks of the manifests: deadlines, rights, ends of pods, metrics, updates. Checks find mutants.

A check gets the objects of a kustomization, by name, and returns what it finds wrong.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cluster.monitoring import relay
from cluster.submitting.kubernetes import job_margin_s
from tests.k8s.conftest import BUILT, K8S, OVERLAYS, PLATFORM, build, named
from tests.k8s.test_ray_objects import _clusters, _jobs

Objects = list[dict[str, Any]]


# -- deadlines --------------------------------------------------------------------------------------------------------


def late(job: Mapping[str, Any]) -> list[str]:
    """A job whose run would still work, and pay, when KubeRay ends it without a word, or whose end is a failure."""
    words = job["entrypoint"].split()
    deadline = float(words[words.index("--deadline") + 1]) if "--deadline" in words else math.inf
    found = [] if deadline + job_margin_s(job) <= job["activeDeadlineSeconds"] else ["KubeRay's deadline comes first"]
    return found + ([] if "--budget-ok" in words else ["KubeRay would start a run again that its budget has ended"])


@pytest.mark.parametrize("folder", BUILT)
def test_a_run_ends_by_itself_before_its_deadline(folder: str) -> None:
    assert [finding for job in _jobs(folder) for finding in late(job)] == []


@pytest.mark.parametrize(
    "mutate",
    [
        lambda job: job.update(entrypoint=job["entrypoint"].replace("--deadline 84000", "")),
        lambda job: job.update(entrypoint=job["entrypoint"].replace("84000", "86000")),
        lambda job: job.update(entrypoint=job["entrypoint"].replace("--budget-ok", "")),
        lambda job: job.update(activeDeadlineSeconds=43_200),
        lambda job: job.update(preRunningDeadlineSeconds=7200),
    ],
)
def test_a_late_deadline_is_found(mutate: Callable[[dict[str, Any]], object]) -> None:
    job = copy.deepcopy(_jobs("base/run")[0])
    mutate(job)
    assert late(job)


# -- rights -----------------------------------------------------------------------------------------------------------

_NEEDED = {
    "gpo submit --kubernetes --apply": ["patch configmaps", "create configmaps", "get rayjobs", "create rayjobs"],
    "the same again, after a failure": ["delete rayjobs", "list rayjobs", "watch rayjobs"],
    "gpo submit --kubernetes --stop": ["patch rayjobs"],
    "gpo submit --kubernetes --follow": ["list pods", "get pods", "get pods/log"],
    "gpo submit --kubernetes --logs": ["create pods", "delete pods"],
    "kubectl logs job/NAME": ["get jobs", "list pods", "get pods/log"],
    "kubectl delete rayjob,configmap -l gpo-run=NAME": ["list configmaps", "delete configmaps", "delete rayjobs"],
    "kubectl port-forward svc/gpo-shared-head-svc": [
        "get services", "list pods", "get pods", "create pods/portforward", "get pods/portforward",
    ],
    "kubectl get secret gpo-ray-token": ["get secrets/gpo-ray-token"],
}  # fmt: skip
"""What gpo-submitter does, by the documentation → the rights that it takes."""
_FORBIDDEN = ("get secrets/gpo-model-keys", "get secrets/gpo-redis", "list secrets", "create pods/exec", "patch pods")


def granted(role: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether a role allows a verb on a resource, or on a resource with a name."""

    def is_granted(right: str) -> bool:
        verb, _, resource = right.partition(" ")
        names = [resource.partition("/")[2]] if resource.startswith("secrets/") else []
        kind = "secrets" if names else resource
        return any(
            (verb in rule["verbs"] or "*" in rule["verbs"])
            and (kind in rule["resources"] or "*" in rule["resources"])
            and (not rule.get("resourceNames") or set(names) & set(rule["resourceNames"]))
            for rule in role["rules"]
        )

    return is_granted


def wrong_rights(role: Mapping[str, Any]) -> list[str]:
    """Rights that a documented command lacks, and rights that reach keys or other people's pods."""
    allows = granted(role)
    missing = [f"{command}: {right}" for command, rights in _NEEDED.items() for right in rights if not allows(right)]
    return missing + [right for right in _FORBIDDEN if allows(right)]


def test_a_submitter_can_do_what_is_documented_and_no_more() -> None:
    assert wrong_rights(named(build(PLATFORM), "Role", "gpo-submitter")) == []


@pytest.mark.parametrize("right", sorted({right for rights in _NEEDED.values() for right in rights}))
def test_a_missing_right_is_found(right: str) -> None:
    role = copy.deepcopy(named(build(PLATFORM), "Role", "gpo-submitter"))
    verb, _, resource = right.partition(" ")
    for rule in role["rules"]:
        if resource.removesuffix("/gpo-ray-token") in rule["resources"]:
            rule["verbs"] = [one for one in rule["verbs"] if one != verb]
    assert wrong_rights(role)


def test_a_right_to_all_secrets_is_found() -> None:
    role = copy.deepcopy(named(build(PLATFORM), "Role", "gpo-submitter"))
    for rule in role["rules"]:
        rule.pop("resourceNames", None)
    assert "get secrets/gpo-model-keys" in wrong_rights(role)


# -- ends of pods -----------------------------------------------------------------------------------------------------


def slow_ends(cluster: Mapping[str, Any]) -> list[str]:
    """Pods that would stay until their grace period is over, since a shell is their first process."""
    found = []
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())):
        container = group["template"]["spec"]["containers"][0]
        if not " ".join(container["lifecycle"]["preStop"]["exec"]["command"]).endswith("drain --node"):
            found.append(f"{container['name']}: preStop does not end Ray")
        waits = {one["name"]: one.get("value") for one in container["env"]}
        if float(waits.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", 30)) > 10:
            found.append(f"{container['name']}: Ray waits long")
    return found


@pytest.mark.parametrize("folder", ["base/run", "base/sweep", "base/cluster", *OVERLAYS])
def test_a_node_ends_soon_after_its_drivers(folder: str) -> None:
    drains = [
        cluster for cluster in _clusters(folder) if "gpo" in str(cluster["headGroupSpec"]["template"]["metadata"])
    ]
    for cluster in drains:
        if cluster["headGroupSpec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] != "task-model":
            assert slow_ends(cluster) == []


@pytest.mark.parametrize("old", [" python -m cluster.submitting.drain --node", " --node"])
def test_a_slow_end_is_found(old: str) -> None:
    cluster = copy.deepcopy(_clusters("base/run")[0])
    command = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    command[2] = command[2].replace(old, "")
    assert slow_ends(cluster)


# -- metrics ----------------------------------------------------------------------------------------------------------


def silent_targets(cluster: Mapping[str, Any]) -> list[str]:
    """Why the metrics target of a cluster that stays would be down between runs."""
    containers = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    owners = {port["name"]: (one, port["containerPort"]) for one in containers for port in one.get("ports", ())}
    container, port = owners.get("gpo-metrics", ({}, 0))
    if container.get("command") != ["python", "-m", relay.__name__]:
        return ["only runs listen at the port"]
    return [] if port == relay.PORT else [f"the relay listens at {relay.PORT}, not at {port}"]


def test_a_cluster_that_stays_answers_scrapes_between_runs() -> None:
    assert silent_targets(_clusters("base/cluster")[0]) == []
    allowed = [
        port["port"]
        for rule in named(build(PLATFORM), "NetworkPolicy", "allow-ray")["spec"]["ingress"]
        if any("gpo-metrics" in str(peer) for peer in rule["from"])
        for port in rule["ports"]
    ]
    assert {relay.PORT, relay.EXPORTER_PORT} <= set(allowed)


@pytest.mark.parametrize(
    "mutate",
    [
        lambda containers: containers.pop(),
        lambda containers: containers[1].pop("command"),
        lambda containers: containers[1]["ports"][0].update(containerPort=9464),
        lambda containers: containers[1].update(ports=[]),
    ],
)
def test_a_silent_target_is_found(mutate: Callable[[list[dict[str, Any]]], object]) -> None:
    cluster = copy.deepcopy(_clusters("base/cluster")[0])
    mutate(cluster["headGroupSpec"]["template"]["spec"]["containers"])
    assert silent_targets(cluster)


# -- updates ----------------------------------------------------------------------------------------------------------

_MUTABLE_OF_SETS = ("replicas", "template", "updateStrategy", "minReadySeconds", "ordinals")


def refused_changes(before: Objects, after: Objects) -> list[str]:
    """Changes of objects that are in both, and that the API server refuses."""
    known = {(item["kind"], item["metadata"]["name"]): item for item in before}
    found = []
    for item in after:
        key = item["kind"], item["metadata"]["name"]
        old = known.get(key, item)
        if item["kind"] == "StatefulSet":
            same = [_without(one["spec"], *_MUTABLE_OF_SETS) for one in (old, item)]
        elif item["kind"] == "PersistentVolumeClaim":
            same = [one["spec"] for one in (old, item)]  # its size may grow, which these need not
        elif item["kind"] == "RoleBinding":
            same = [one["roleRef"] for one in (old, item)]
        elif item["kind"] == "ConfigMap" and old.get("immutable"):
            same = [_without(one, "metadata") for one in (old, item)]
        else:
            continue
        if same[0] != same[1]:
            found.append("/".join(key))
    return found


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_an_overlay_can_be_applied_over_an_existing_platform(folder: str) -> None:
    for other in (PLATFORM, *OVERLAYS):
        assert refused_changes(build(other), build(folder)) == [], other


@pytest.mark.parametrize(
    ("kind", "name", "mutate"),
    [
        ("PersistentVolumeClaim", "gpo-storage", lambda spec: spec.update(accessModes=["ReadWriteOnce"])),
        ("PersistentVolumeClaim", "gpo-storage", lambda spec: spec["resources"]["requests"].update(storage="1Gi")),
        ("StatefulSet", "gpo-redis", lambda spec: spec["volumeClaimTemplates"][0]["spec"].update(accessModes=[])),
        ("StatefulSet", "gpo-redis", lambda spec: spec.update(serviceName="other")),
    ],
)
def test_a_refused_change_is_found(kind: str, name: str, mutate: Callable[[dict[str, Any]], object]) -> None:
    after = copy.deepcopy(build(PLATFORM))
    mutate(named(after, kind, name)["spec"])
    assert refused_changes(build(PLATFORM), after) == [f"{kind}/{name}"]


def old_versions(objects: Objects) -> list[str]:
    """Objects of an API version that is to be removed."""
    return [item["kind"] for item in objects if item["apiVersion"] in ("kueue.x-k8s.io/v1beta1", "ray.io/v1alpha1")]


def test_no_object_has_a_version_that_will_be_removed() -> None:
    assert [kind for folder in BUILT for kind in old_versions(build(folder))] == []
    mutant = copy.deepcopy(build("overlays/kueue"))
    named(mutant, "LocalQueue")["apiVersion"] = "kueue.x-k8s.io/v1beta1"
    assert old_versions(mutant) == ["LocalQueue"]


# -- the documentation ------------------------------------------------------------------------------------------------


def unhelpful_commands(page: str) -> list[str]:
    """Commands of the first run that wait for success alone, or that may show the output before it is complete."""
    commands = [line for line in page.splitlines() if line.startswith("kubectl -n gpo ")]
    waits = [line for line in commands if " wait rayjob/" in line]
    logs = [line for line in commands if " logs " in line and "job/gpo-run" in line]
    found = [line for line in waits if "}'=" in line]
    return found + [line for line in logs if " -f " not in line] + ([] if waits and logs else ["there are none"])


def test_the_commands_of_the_first_run_end_with_success_or_failure() -> None:
    page = (K8S / "README.md").read_text(encoding="utf-8")
    assert unhelpful_commands(page) == []
    assert unhelpful_commands(page.replace("'{.status.endTime}'", "'{.status.jobStatus}'=SUCCEEDED"))
    assert unhelpful_commands(page.replace("logs -f job/gpo-run", "logs job/gpo-run"))
