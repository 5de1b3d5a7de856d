"""``gpo submit --kubernetes`` with a cluster: start, status, output, stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli.submit import submit
from cluster.submitting import ray_jobs
from cluster.submitting.ray_jobs import RayJob
from cluster.submitting.stored_logs import driver_logs
from gpo.errors import ClusterError, ConfigError
from tests.configs import submitted_config
from tests.k8s.pods import pod_templates, violations
from tests.kubectl import FakeCluster

_REFUSED = "Job entrypoint command failed with exit code 2, last available logs (truncated to 20,000 chars):\nwhy"

_LATE = "The RayJob has passed the activeDeadlineSeconds. StartTime: 2026-11-30. ActiveDeadlineSeconds: 86400"
"""As KubeRay writes it."""


_PROGRAM = """#!/bin/sh
[ $3 = logs ] && echo "got $*" && exit
echo 'Error: no' >&2
exit 1
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(ray_jobs, "_POLL_S", 0.01)
    return FakeCluster(monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with its data."""
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / f"data/{split}.jsonl").write_text(f'{{"input": "{split}", "target": "b"}}\n', encoding="utf-8")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(submitted_config()), encoding="utf-8")
    return path


def start(config: Path, **options: Any) -> int:
    return submit(config, apply=True, image="gpo:1", run_id="first", **options)


def test_the_same_command_twice_is_safe(config: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(config) == 0
    before = cluster.object("RayJob", "first")
    assert start(config) == 0
    assert "already working on this run" in capsys.readouterr().err
    cluster.report("first", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert start(config) == 0
    assert "has succeeded; if its budget ended the run, a larger one continues it" in capsys.readouterr().err
    assert (cluster.object("RayJob", "first") or {}).get("spec") == (before or {}).get("spec")
    assert [line for line in cluster.commands if line.startswith("create")] == ["create -f -"]


def test_a_run_with_another_configuration_waits_for_the_first(
    config: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    start(config)
    cluster.report("first", jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert start(config, overrides=["budget.calls=9"]) == 0
    assert "with another configuration; to change it, stop it first" in capsys.readouterr().err
    assert len(cluster.commands) == 2


@pytest.mark.parametrize(
    ("status", "overrides"),
    [
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, []),
        ({"jobDeploymentStatus": "Suspended"}, []),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, []),
        # Its budget ended it, and now it has a larger one.
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, ["budget.calls=9"]),
    ],
)
def test_a_run_that_has_ended_is_continued(
    status: dict[str, str], overrides: list[str], config: Path, cluster: FakeCluster
) -> None:
    start(config)
    cluster.report("first", **status)
    assert start(config, overrides=overrides) == 0
    assert "status" not in (cluster.object("RayJob", "first") or {"status": 0}), "it is a new one"
    assert cluster.commands[-3:] == [
        "apply --server-side --force-conflicts -f -",
        "delete rayjobs.ray.io first --ignore-not-found",
        "create -f -",
    ]


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        ({}, 0, "first new"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, 0, "first Running RUNNING"),
        ({"jobDeploymentStatus": "Retrying", "failed": 2}, 0, "first Retrying, 2 failed attempts"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, 0, "first Complete SUCCEEDED"),
        ({"jobDeploymentStatus": "Suspended"}, 1, "first stopped"),
        (
            {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": _REFUSED, "failed": 4},
            2,
            "first Failed FAILED, 4 failed attempts: Job entrypoint command failed with exit code 2",
        ),
        (
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": _LATE},
            1,
            "first Failed: The RayJob has passed the activeDeadlineSeconds.",
        ),
        ({"jobDeploymentStatus": "Failed", "reason": "ValidationFailed"}, 1, "first Failed: ValidationFailed"),
    ],
)
def test_the_status_is_shown_and_decides_the_exit_code(
    status: dict[str, Any],
    code: int,
    shown: str,
    config: Path,
    cluster: FakeCluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start(config)
    cluster.report("first", **status)
    assert submit(kubernetes=True, status="first") == code
    assert capsys.readouterr().out.startswith(shown)
    if code:
        assert submit(kubernetes=True, status="first", wait=True) == code


def test_waiting_ends_with_success_or_failure(
    config: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter(
        [
            {"jobDeploymentStatus": "Running"},
            {"jobDeploymentStatus": "Retrying", "failed": 1},
            {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": _REFUSED},
        ]
    )
    monkeypatch.setattr("cluster.submitting.ray_jobs.time.sleep", lambda _: cluster.report("first", **next(states)))
    assert start(config, wait=True) == 2
    assert "--logs first" in capsys.readouterr().err
    assert next(states, None) is None


def test_following_shows_the_output_of_every_attempt_once(
    config: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def next_state(_: float) -> None:
        match (cluster.object("RayJob", "first") or {}).get("status", {}).get("jobDeploymentStatus"):
            case None:
                cluster.report("first", jobDeploymentStatus="Running")
                cluster.output["first-submitter-a"] = "one\ntwo\n"
            case "Running":
                cluster.report("first", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
                cluster.output["first-submitter-b"] = "three\n"

    monkeypatch.setattr("cluster.submitting.ray_jobs.time.sleep", next_state)
    assert start(config, follow=True) == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_output_after_a_connection_was_closed_is_shown(
    config: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def next_state(_: float) -> None:
        cluster.output["first-submitter-a"] += "two\n"  # kubectl logs -f ended after "one" without an error
        cluster.report("first", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    cluster.output["first-submitter-a"] = "one\n"
    monkeypatch.setattr("cluster.submitting.ray_jobs.time.sleep", next_state)
    assert start(config, follow=True) == 0
    assert capsys.readouterr().out == "one\ntwo\n"


def test_the_logs_of_failed_attempts_come_from_the_storage(
    config: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    start(config)
    cluster.report("first", jobDeploymentStatus="Failed", message=_REFUSED, rayClusterName="first-bbbbb", failed=1)
    cluster.output["stored"] = "--- first-aaaaa-head-x\nearlier\n"
    cluster.output["first-submitter-b"] = "newest\n"
    assert submit(kubernetes=True, logs="first") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("--- first-aaaaa-head-x\nearlier\n--- first-submitter-b\nnewest\n--- first Failed")
    assert cluster.commands[-1].startswith("delete pod first-logs-")


def test_the_logs_of_a_deleted_rayjob_are_on_the_storage(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="if the RayJob was deleted, add --image"):
        submit(kubernetes=True, logs="first")
    cluster.output["stored"] = "--- first-aaaaa-head-x\nearlier\n"
    assert submit(kubernetes=True, logs="first", image="gpo:1") == 0
    assert capsys.readouterr().out == "--- first-aaaaa-head-x\nearlier\n"


def test_the_pod_that_reads_logs_is_restricted(config: Path, cluster: FakeCluster) -> None:
    start(config)
    spec = (cluster.object("RayJob", "first") or {})["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    storage = next(volume for volume in head["volumes"] if volume["name"] == "storage")
    pod = ray_jobs._reader("first", head, storage, None, "first-bbbbb")
    (found,) = pod_templates({**pod, "kind": "Job", "spec": {"template": pod}})
    assert violations(found) == []
    assert pod["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] is True
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] != "gpo", "no network policy allows it anything"


def test_the_pod_that_reads_logs_can_start_where_the_head_can(config: Path, cluster: FakeCluster) -> None:
    start(config)
    spec = (cluster.object("RayJob", "first") or {})["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["serviceAccountName"] == "gpo-head"
    head |= {
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"pool": "runs"},
        "tolerations": [{"key": "runs", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "runtimeClassName": "gvisor",
        "priorityClassName": "runs",
        "schedulerName": "packed",
    }
    fields = {name: head[name] for name in ("serviceAccountName", *list(head)[-8:])}
    storage = next(volume for volume in head["volumes"] if volume["name"] == "storage")
    pod = ray_jobs._reader("first", head, storage, None, "")
    assert {name: pod["spec"].get(name) for name in fields} == fields
    assert pod["spec"]["automountServiceAccountToken"] is False
    (found,) = pod_templates({**pod, "kind": "Job", "spec": {"template": pod}})
    assert violations(found) == []


def test_stopping_lets_the_run_save_its_work(
    config: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    start(config)
    cluster.report("first", jobDeploymentStatus="Running")
    assert submit(kubernetes=True, stop="first") == 0
    assert "has stopped" in capsys.readouterr().err
    # KubeRay deletes the cluster, and its head's preStop hook stops the driver; the RayJob stays.
    assert cluster.commands[-1] == 'patch rayjobs.ray.io first --type=merge -p {"spec": {"suspend": true}}'
    assert submit(kubernetes=True, stop="first") == 0
    assert "was not working" in capsys.readouterr().err


def test_a_run_in_a_queue_is_neither_over_nor_stopped(config: Path, cluster: FakeCluster) -> None:
    start(config)
    item = cluster.object("RayJob", "first") or {}
    item["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpo"
    cluster.report("first", jobDeploymentStatus="Suspended")
    job = ray_jobs.RayJobs("gpo").get("first")
    assert not job.is_over
    assert job.shown == "first queued"
    with pytest.raises(ConfigError, match="Kueue would start RayJob 'first' again"):
        submit(kubernetes=True, stop="first")


def test_mistakes_are_named(config: Path, cluster: FakeCluster) -> None:
    for option in ("status", "logs", "stop"):
        with pytest.raises(ConfigError, match="there is no RayJob 'first' in the namespace 'gpo'"):
            submit(kubernetes=True, **{option: "first"})
    with pytest.raises(ConfigError, match="add --apply"):
        submit(config, kubernetes=True, image="gpo:1", wait=True)
    cluster.refuses = "ConfigMap"
    with pytest.raises(ClusterError, match=r"apply failed for the ConfigMap first-.*: Error from server \(Forbidden\)"):
        start(config)
    assert cluster.object("RayJob", "first") is None
    cluster.refuses = "RayJob"
    with pytest.raises(ClusterError, match="create failed for the RayJob first"):
        start(config)


def test_kubectl_is_a_program_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "kubectl"
    program.write_text(_PROGRAM, encoding="utf-8")
    program.chmod(0o755)
    jobs, lines = ray_jobs.RayJobs("team"), list[str]()
    jobs._stream("pod", {}, lines.append)
    assert lines == ["got -n team logs pod -f\n"]
    with pytest.raises(ClusterError, match="kubectl get failed: Error: no"):
        jobs.get("first")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="kubectl is not installed"):
        submit(kubernetes=True, status="first")


def test_only_the_drivers_of_the_run_are_shown_the_oldest_first(tmp_path: Path) -> None:
    long = "n" * 47
    for age, (pod, file) in enumerate(
        {
            "first-aaaaa-head-x1x1x": "job-driver-first-aaaaa.log",
            "first-bbbbb-head-x2x2x": "job-driver-first-bbbbb.log",
            "first-ccccc-worker-x3": "job-driver-no.log",
            "first-2-ccccc-head-x4": "job-driver-other.log",
            f"{long}-dd-head-x5": "job-driver-long.log",
        }.items()
    ):
        (tmp_path / pod).mkdir()
        for name in (file, "raylet.out"):
            (tmp_path / pod / name).write_text(f"{pod}\n", encoding="utf-8")
            os.utime(tmp_path / pod / name, (100 - age, 100 - age))
    assert [pod for pod, _ in driver_logs("first", folder=tmp_path)] == [
        "first-bbbbb-head-x2x2x",
        "first-aaaaa-head-x1x1x",
    ]
    assert [pod for pod, _ in driver_logs("first", "first-bbbbb", tmp_path)] == ["first-aaaaa-head-x1x1x"]
    assert [pod for pod, _ in driver_logs(long, folder=tmp_path)] == [f"{long}-dd-head-x5"]
    assert list(driver_logs("first", folder=tmp_path / "nothing")) == []


def test_only_a_job_that_succeeded_and_is_complete_counts_as_success() -> None:
    spec: dict[str, Any] = {}
    assert RayJob("n", spec, "Failed", "SUCCEEDED").exit_code == 1
    assert RayJob("n", spec, "Complete", "STOPPED").exit_code == 1
    assert not RayJob("n", spec, "Retrying", "FAILED").is_over


@pytest.mark.parametrize("kubernetes", [True, False])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"status": "first", "logs": "first"}, "--status: cannot be combined with --logs; use one of them"),
        ({"logs": "first", "stop": "first"}, "--logs: cannot be combined with --stop; use one of them"),
        ({"status": "a", "logs": "b", "stop": "c"}, "--status: cannot be combined with --logs and --stop"),
        ({"logs": "first", "follow": True}, "--logs: cannot be combined with --follow; use --status ID --follow"),
        ({"stop": "first", "follow": True}, "--stop: cannot be combined with --follow"),
        ({"logs": "first", "wait": True}, "--logs: cannot be combined with --wait"),
    ],
)
def test_two_actions_at_once_are_refused(
    kubernetes: bool, options: dict[str, Any], words: str, config: Path, cluster: FakeCluster
) -> None:
    with pytest.raises(ConfigError, match=words):
        submit(kubernetes=kubernetes, **options)
    start(config)
    cluster.report("first", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    commands = list(cluster.commands)
    with pytest.raises(ConfigError, match=words):
        submit(config, kubernetes=kubernetes, **options)
    assert cluster.commands == commands


def test_pairs_that_make_sense_stay(config: Path, cluster: FakeCluster) -> None:
    start(config)
    cluster.report("first", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert submit(kubernetes=True, status="first", follow=True, wait=True) == 0
    assert submit(kubernetes=True, stop="first", wait=True) == 0
