from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.k8s.conftest import BUILT, CRDS, build, named
from tests.k8s.schemas import FOREIGN, Misfit, check

pytestmark = pytest.mark.skipif(not CRDS.is_dir(), reason="GPO_CRDS names no folder with KubeRay's CRDs")


@pytest.mark.parametrize("folder", BUILT)
def test_every_object_fits_its_schema(folder: str) -> None:
    objects = build(folder)
    assert objects
    for item in objects:
        try:
            check(item)
        except Misfit as misfit:
            pytest.fail(f"{item['kind']} {item['metadata']['name']}: {misfit}")


def test_only_known_kinds_have_no_schema() -> None:
    unchecked = {
        item["kind"] for folder in BUILT for item in build(folder) if item["apiVersion"].startswith(tuple(FOREIGN))
    }
    assert unchecked <= {"PodMonitor", "PrometheusRule", "ResourceFlavor", "ClusterQueue", "LocalQueue"}


_HEAD = ("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("RayJob", "gpo-run", ("ttlSecondAfterFinished",), 600),
        ("RayJob", "gpo-run", ("backoffLimit",), "three"),
        ("RayJob", "gpo-run", ("rayClusterSpec", "enableInTreeAutoscaling"), "true"),
        ("RayJob", "gpo-run", ("rayClusterSpec", "authOptions", "mode"), "tokens"),
        ("RayJob", "gpo-run", ("rayClusterSpec", "autoscalerOptions", "version"), "v3"),
        ("RayJob", "gpo-run", ("rayClusterSpec", "workerGroupSpecs", 0, "minReplica"), 0),
        ("RayJob", "gpo-run", (*_HEAD, "resources", "limits", "memory"), "4Gb"),
        ("RayJob", "gpo-run", (*_HEAD, "securityContext", "runAsNonroot"), True),
        ("RayJob", "gpo-run", (*_HEAD, "env", 0, "valueFrom", "secretKeyRef", "keys"), "password"),
        ("RayCluster", "gpo-shared", ("gcsFaultToleranceOptions", "redisAdress"), "redis:6379"),
        ("RayService", "gpo-evaluator", ("upgradeStrategy", "typ"), "NewCluster"),
        ("RayService", "gpo-evaluator", ("serveConfigV2",), {"applications": []}),
        ("StatefulSet", "gpo-redis", ("replica",), 1),
        ("StatefulSet", "gpo-redis", ("replicas",), "one"),
        ("StatefulSet", "gpo-redis", ("template", "spec", "containers", 0, "resources", "limits", "memory"), "3GB"),
        ("PersistentVolumeClaim", "gpo-storage", ("resources", "requests", "storage"), "20 Gi"),
        ("NetworkPolicy", "allow-dns", ("egress", 0, "port"), []),
        ("PodDisruptionBudget", "gpo-redis", ("minAvailable",), [1]),
    ],
)
def test_a_mistake_is_found(kind: str, name: str, path: tuple[Any, ...], value: Any) -> None:
    item = copy.deepcopy(named(build("base"), kind, name))
    check(item)
    *parents, last = path
    target = item["spec"]
    for key in parents:
        target = target[key]
    target[last] = value
    with pytest.raises(Misfit):
        check(item)
