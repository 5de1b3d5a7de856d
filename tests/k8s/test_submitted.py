from __future__ import annotations

import pytest
import yaml

from cluster.config import load_config
from cluster.submitting.jobs import JobSpec
from cluster.submitting.kubernetes import manifest
from tests.k8s.conftest import CRDS, ROOT
from tests.k8s.pods import pod_templates, violations
from tests.k8s.schemas import check


@pytest.mark.skipif(not CRDS.is_dir(), reason="GPO_CRDS names no folder with KubeRay's CRDs")
def test_the_objects_of_a_submitted_run_fit_their_schemas() -> None:
    path = ROOT / "configs/endpoint.yaml"
    spec = JobSpec("run", "", (), "sentiment-20261121-173238-ab12", "/storage/runs/first")
    text = manifest(path, load_config(path), None, spec, image="registry.example.com/gpo:1", namespace="gpo").text
    settings, job = yaml.safe_load_all(text)
    check(settings)
    check(job)
    assert [finding for pod in pod_templates(job) for finding in violations(pod)] == []
