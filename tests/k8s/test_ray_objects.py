from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config.loading import read_overridden, validate
from cluster.serving.app import EvaluatorArgs
from cluster.submitting import drain
from tests.k8s.conftest import BUILT, K8S, PLATFORM, ROOT, build, named

_CLUSTER_PARTS = ("rayClusterSpec", "rayClusterConfig")


def _clusters(folder: str) -> list[dict[str, Any]]:
    found = []
    for item in build(folder):
        if item["apiVersion"].startswith("ray.io"):
            spec = item["spec"].get("jobTemplate", item["spec"])
            found.append(next((spec[part] for part in _CLUSTER_PARTS if part in spec), spec))
    return found


def _jobs(folder: str) -> list[dict[str, Any]]:
    specs = [item["spec"] for item in build(folder) if item["kind"] in ("RayJob", "RayCronJob")]
    return [spec.get("jobTemplate", spec) for spec in specs]


@pytest.mark.parametrize("folder", BUILT)
def test_every_cluster_requires_a_token(folder: str) -> None:
    for cluster in _clusters(folder):
        assert cluster["authOptions"] == {"mode": "token", "secretName": "gpo-ray-token"}
        assert cluster["rayVersion"] == _locked("ray")


def _locked(package: str) -> str:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    (version,) = [line.split()[0].partition("==")[2] for line in lines if line.startswith(f"{package}==")]
    return version


@pytest.mark.parametrize("folder", BUILT)
def test_a_cluster_that_scales_up_scales_down_again(folder: str) -> None:
    for cluster in _clusters(folder):
        if not cluster.get("enableInTreeAutoscaling"):
            assert "autoscalerOptions" not in cluster
            continue
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] <= 600
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "actors on the head would keep it busy"
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] < group["maxReplicas"]
            assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"


@pytest.mark.parametrize("folder", BUILT)
def test_a_job_removes_its_cluster_and_resumes_after_a_failure(folder: str) -> None:
    for job in _jobs(folder):
        assert job["shutdownAfterJobFinishes"] is True
        assert 0 < job["ttlSecondsAfterFinished"] <= 3600
        assert job["backoffLimit"] >= 1
        assert job["submitterConfig"]["backoffLimit"] >= 1
        assert 0 < job["preRunningDeadlineSeconds"] < job["activeDeadlineSeconds"]
        command = job["entrypoint"].split()
        assert command[:3] == ["python", "-m", "cluster.cli"]
        assert command[-1] == "--resume"
        assert command[command.index("--run-dir") + 1].startswith("/storage/runs/")
        head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        waits = {one["name"]: one.get("value") for one in head["containers"][0]["env"]}
        assert int(waits["RAY_JOB_STOP_WAIT_TIME_S"]) < head["terminationGracePeriodSeconds"]
        _require_drained(head)


def test_a_later_attempt_of_a_scheduled_run_has_the_same_run_id() -> None:
    objects = build("overlays/nightly")
    (job,) = _jobs("overlays/nightly")
    submitter = named(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    for command, container in (
        (job["entrypoint"], job["submitterPodTemplate"]["spec"]["containers"][0]),
        (submitter["args"][0], submitter),
    ):
        words = command.replace('"', "").split()
        assert words[words.index("--run-id") + 1] == "$GPO_RUN"
        assert "$(" not in command, "it would be evaluated again in each attempt"
        assert "--budget-ok" in words, "a run whose time is over would be started again"
        names = [one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"] if one["name"] == "GPO_RUN"]
        # Kubernetes gives each pod of a Job this label, and KubeRay names the Job after the RayJob.
        assert names == ["metadata.labels['batch.kubernetes.io/job-name']"]


def _require_drained(head: dict[str, Any]) -> None:
    """The head stops its driver before it ends, because Ray kills the driver with its node."""
    before_end = " ".join(head["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
    assert "python -m cluster.submitting.drain" in before_end
    assert head["terminationGracePeriodSeconds"] > drain._PATIENCE_S


def test_the_shared_cluster_stops_its_jobs_before_it_ends() -> None:
    _require_drained(named(build("base"), "RayCluster")["spec"]["headGroupSpec"]["template"]["spec"])


@pytest.mark.parametrize("folder", [PLATFORM, "overlays/laptop", "overlays/gpu"])
def test_the_mounted_configurations_are_valid(folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPO_REDIS_URL", "redis://gpo-redis:6379/1")
    for name, text in named(build(folder), "ConfigMap", "gpo-configs")["data"].items():
        path = tmp_path / name
        path.write_text(text.replace("/app/", f"{ROOT}/"), encoding="utf-8")
        raw = read_overridden(path, [])
        raw.pop("sweep", None)
        config = validate(raw, base_dir=tmp_path)
        if name != "evaluator.yaml":
            assert config.run.dir == "/storage/runs"
            # The PodMonitor names this port.
            assert (config.metrics.port, config.metrics.host) == (9464, "0.0.0.0")  # noqa: S104


def test_jobs_name_mounted_files() -> None:
    for folder in BUILT:
        for job in _jobs(folder):
            path = next(word for word in shlex.split(job["entrypoint"]) if word.endswith(".yaml"))
            assert path.removeprefix("/etc/gpo/configs/") in named(build(PLATFORM), "ConfigMap", "gpo-configs")["data"]


def test_the_service_has_the_same_applications_as_serve_deploy() -> None:
    from ray.serve.schema import ServeDeploySchema

    service = yaml.safe_load(named(build("base"), "RayService")["spec"]["serveConfigV2"])
    deployed = yaml.safe_load((ROOT / "configs/serve/evaluator.yaml").read_text(encoding="utf-8"))
    for document in (service, deployed):
        schema = ServeDeploySchema.model_validate(document)
        (application,) = schema.applications
        EvaluatorArgs.model_validate(application.args)
        assert {deployment.name for deployment in application.deployments} == {"ingress", "evaluator"}
    assert (ROOT / deployed["applications"][0]["args"].pop("config")).is_file()
    config = service["applications"][0]["args"].pop("config")
    assert config.removeprefix("/etc/gpo/configs/") in named(build(PLATFORM), "ConfigMap", "gpo-configs")["data"]
    assert service == deployed


@pytest.mark.parametrize("folder", BUILT)
def test_every_node_of_a_service_declares_its_port(folder: str) -> None:
    for item in build(folder):
        if item["kind"] == "RayService":
            spec = item["spec"]["rayClusterConfig"]
            port = yaml.safe_load(item["spec"]["serveConfigV2"])["http_options"]["port"]
            for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                ports = group["template"]["spec"]["containers"][0]["ports"]
                assert {"name": "serve", "containerPort": port} in ports


_OPERATORS = [
    {"name": "kuberay-operator", "component": "kuberay-operator", "instance": "release"},  # KubeRay's chart
    {"name": "kuberay-operator", "instance": "release"},  # an older chart
    {"name": "kuberay", "component": "kuberay-operator"},  # its kustomization
]
"""Labels of an operator's pod, with the prefix ``app.kubernetes.io``."""


@pytest.mark.parametrize("labels", [*_OPERATORS, {"name": "another", "component": "operator"}])
def test_the_operator_reaches_ray_however_it_was_installed(labels: dict[str, str]) -> None:
    pod = {f"app.kubernetes.io/{name}": value for name, value in labels.items()}
    ports = set()
    for rule in named(build(PLATFORM), "NetworkPolicy", "allow-ray")["spec"]["ingress"]:
        for peer in rule["from"]:
            # Neither the peers selected by their namespace alone nor Ray's own pods.
            if peer.get("namespaceSelector") == {} and peer["podSelector"]["matchLabels"].items() <= pod.items():
                ports |= {one["port"] for one in rule["ports"]}
    assert ports == ({8265, 8000, 52365} if labels in _OPERATORS else set())


@pytest.mark.parametrize("component", ["object-store", "deletion-rules"])
def test_components_fit_the_jobs(component: str, tmp_path: Path) -> None:
    # A kustomization may contain only relative paths.
    steps = [".."] * len(tmp_path.resolve().parts[1:])
    root = "/".join([*steps, *K8S.parts[1:]])
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [f"{root}/base/{name}" for name in ("platform", "run", "sweep")],
                "components": [f"{root}/components/{component}"],
            }
        ),
        encoding="utf-8",
    )
    objects = build(str(tmp_path))
    if component == "object-store":
        assert "gpo-storage" not in str([item["spec"] for item in objects if item["kind"] == "RayJob"])
        assert not [item for item in objects if item["metadata"]["name"] == "gpo-storage"]
        for item in objects:
            if item["kind"] == "RayJob":
                _require_drained(item["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"])
    for item in objects:
        if item["kind"] == "RayJob" and component == "deletion-rules":
            rules = item["spec"]["deletionStrategy"]["deletionRules"]
            assert {"SUCCEEDED", "FAILED", None} == {rule["condition"].get("jobStatus") for rule in rules}
            # KubeRay refuses both together.
            assert "shutdownAfterJobFinishes" not in item["spec"]
