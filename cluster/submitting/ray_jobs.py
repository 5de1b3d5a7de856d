"""RayJobs on Kubernetes: started, watched and stopped with ``kubectl``."""

from __future__ import annotations

import json
import math
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster.submitting.jobs import asked_until
from cluster.submitting.kubernetes import Manifest, as_yaml, object_name, rayjob_template
from gpo.errors import ClusterError, ConfigError
from gpo.text import first_line

_POLL_S = 2.0
_READER_S = 300
"""Seconds after which a pod that reads logs is given up."""
_OVER = ("Complete", "Failed", "ValidationFailed", "Suspended")
_QUEUE = "kueue.x-k8s.io/queue-name"
_EXIT_CODE = re.compile(r"exit code (\d+)")

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class RayJob:
    """A RayJob as Kubernetes reports it.

    Attributes:
        name: of the object.
        spec: as it was created.
        state: of the whole: ``Initializing``, ``Running``, ``Retrying``, ``Complete``, ``Failed``, ``Suspended`` …
        job: of the newest attempt: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED``, ``STOPPED``; may be empty.
        message: of a failure.
        num_failed: attempts that failed.
        cluster: the name of the newest attempt's RayCluster.
        has_queue: whether Kueue starts and suspends it.
    """

    name: str
    spec: Mapping[str, Any]
    state: str = ""
    job: str = ""
    message: str = ""
    num_failed: int = 0
    cluster: str = ""
    has_queue: bool = False

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> RayJob:
        """From the object in JSON."""
        status = item.get("status") or {}
        reason, message = status.get("reason") or "", status.get("message") or ""
        return cls(
            item["metadata"]["name"],
            item["spec"],
            status.get("jobDeploymentStatus") or "",
            status.get("jobStatus") or "",
            message or reason,
            int(status.get("failed") or 0),
            status.get("rayClusterName") or "",
            _QUEUE in (item["metadata"].get("labels") or {}),
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or was stopped. One that waits in a queue has not."""
        return self.state in _OVER and not (self.has_queue and self.state == "Suspended")

    @property
    def exit_code(self) -> int:
        """The driver's exit code; 1 if it ended without one."""
        if self.job == "SUCCEEDED" and self.state == "Complete":
            return 0
        code = _EXIT_CODE.search(self.message)
        return 2 if code is not None and code[1] == "2" else 1

    @property
    def shown(self) -> str:
        """State and message in one line."""
        failed = f", {self.num_failed} failed attempts" if self.num_failed else ""
        suspended = "queued" if self.has_queue else "stopped"
        state = suspended if self.state == "Suspended" else self.state or "new"
        parts = [f"{self.name} {state}"] + ([self.job] if self.job and self.state != "Suspended" else [])
        return f"{' '.join(parts)}{failed}: {first_line(self.message)}".removesuffix(": ")


class RayJobs:
    """The RayJobs of a namespace.

    Raises:
        ConfigError: ``kubectl`` is not installed. (Every method.)
        ClusterError: ``kubectl`` fails. (Every method.)
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def find(self, run_id: str) -> RayJob | None:
        """The RayJob of a run, or with this name."""
        found = self._read("get", "rayjobs.ray.io", object_name(run_id), "--ignore-not-found", "-o", "json")
        return RayJob.of(json.loads(found)) if found.strip() else None

    def get(self, run_id: str) -> RayJob:
        """The RayJob of a run.

        Raises:
            ConfigError: there is none.
        """
        found = self.find(run_id)
        if found is None:
            raise ConfigError(
                "ID",
                f"there is no RayJob {object_name(run_id)!r} in the namespace {self._namespace!r}",
                f"list them with: kubectl -n {self._namespace} get rayjobs",
            )
        return found

    def start(self, manifest: Manifest, say: Say) -> None:
        """Create the objects of a run, unless a RayJob is working on it or has succeeded in the same way.

        A RayJob runs once, so one that has failed, was stopped, or had another configuration is replaced.
        """
        name = manifest.job["metadata"]["name"]
        known = self.find(name)
        if known is not None and not known.is_over:
            is_same = _essence(known.spec) == _essence(manifest.job["spec"])
            other = "" if is_same else ", with another configuration; to change it, stop it first"
            say(f"RayJob {name} is already working on this run{other}")
            return
        # An existing ConfigMap of this name has the same content. Applied on the server's side, since kubectl would
        # copy the object into an annotation, and annotations hold only a quarter as much as a ConfigMap.
        self._write(["apply", "--server-side", "--force-conflicts"], manifest.config_map)
        if known is not None:
            if known.exit_code == 0 and _essence(known.spec) == _essence(manifest.job["spec"]):
                # That its budget ended the run is a success, too (--budget-ok).
                say(f"RayJob {name} has succeeded; if its budget ended the run, a larger one continues it")
                return
            say(f"RayJob {name} has ended ({known.state}); a new one continues its run")
            self._read("delete", "rayjobs.ray.io", name, "--ignore-not-found")
        self._write(["create"], manifest.job)

    def stop(self, run_id: str) -> bool:
        """Stop a run and wait until it has saved its work and its cluster is gone; whether it was working."""
        job = self.get(run_id)
        if job.is_over:
            return False
        if job.has_queue:
            raise ConfigError(
                "--stop",
                f"Kueue would start RayJob {job.name!r} again",
                f"delete it; its results stay: kubectl -n {self._namespace} delete rayjob {job.name}",
            )
        # KubeRay deletes the cluster then, and its head stops the driver before it ends.
        self._read("patch", "rayjobs.ray.io", job.name, "--type=merge", "-p", '{"spec": {"suspend": true}}')
        self.wait(job.name)
        return True

    def wait(self, run_id: str, timeout_s: float = math.inf) -> RayJob:
        """Wait until a RayJob has succeeded, failed or stopped, or for some seconds; its last state.

        Raises:
            ClusterError: Kubernetes was unreachable for a minute.
        """
        return asked_until(lambda: self.get(run_id), lambda job: job.is_over, timeout_s, _POLL_S)

    def follow(self, run_id: str, show: Callable[[str], None], say: Say) -> RayJob:
        """Show the output of all attempts until the RayJob ends; its final state.

        Raises:
            ClusterError: Kubernetes was unreachable for a minute.
        """
        shown: dict[str, int] = {}
        state = ""
        while True:
            job = self.wait(run_id, 0.0)
            if (said := job.shown) != state:
                state = said
                say(state)
            for pod in self._submitters(job.name):
                # Also one whose stream has ended: a connection that closes looks like the end of the output.
                self._stream(pod, shown, show)
            if job.is_over:
                return job
            time.sleep(_POLL_S)

    def logs(self, run_id: str, show: Callable[[str], None], image: str | None = None) -> None:
        """Show the output of all attempts: of earlier ones from the storage, of the newest one from its submitter.

        Args:
            image: for the pod that reads the storage, if there is no RayJob any more.

        Raises:
            ConfigError: there is neither a RayJob nor an image.
        """
        job = self.find(run_id)
        name = object_name(run_id) if job is None else job.name
        if job is None and not image:
            raise ConfigError(
                "ID",
                f"there is no RayJob {name!r} in the namespace {self._namespace!r}",
                "correct the ID; if the RayJob was deleted, add --image to read its logs on the storage",
            )
        pods = [] if job is None else self._submitters(name)
        # The newest attempt is read from its submitter, where it is complete also while it works.
        current = job.cluster if job is not None and pods else ""
        show(self._stored_logs(name, rayjob_template("run")["spec"] if job is None else job.spec, image, current))
        for pod in pods:
            show(f"--- {pod}\n")
            self._stream(pod, {}, show, follow=job is not None and job.is_over)
        if job is not None and job.message:
            show(f"--- {job.shown}\n")

    # -- inside -------------------------------------------------------------------------------------------------------

    def _submitters(self, name: str) -> list[str]:
        """The pods that submitted the job of the newest attempt and follow its output, the oldest first."""
        listed = self._read(
            "get", "pods", "-l", f"batch.kubernetes.io/job-name={name}", "--sort-by=.metadata.creationTimestamp",
            "-o", "jsonpath={range .items[*]}{.metadata.name}{'\\n'}{end}",
        )  # fmt: skip
        return listed.split()

    def _stream(self, pod: str, shown: dict[str, int], show: Callable[[str], None], *, follow: bool = True) -> None:
        """Show what a pod has written beyond what was shown.

        Args:
            shown: pod → characters that were shown; kept up to date.
        """
        command = ["logs", pod, *(["-f"] if follow else [])]
        seen = 0
        with self._started(command) as process:
            for line in process.stdout or ():
                before = shown.get(pod, 0)
                if seen + len(line) > before:
                    show(line[max(0, before - seen) :])
                seen += len(line)
                shown[pod] = max(before, seen)

    def _stored_logs(self, name: str, spec: Mapping[str, Any], image: str | None, current: str) -> str:
        """The output of earlier attempts, read by a pod that mounts the storage."""
        head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        storage = next(volume for volume in head["volumes"] if volume["name"] == "storage")
        if "persistentVolumeClaim" not in storage:
            return "The logs of earlier attempts were not kept: the run has no shared storage\n"
        reader = _reader(name, head, storage, image, current)
        pod = reader["metadata"]["name"]
        self._write(["create"], {**reader, "metadata": {**reader["metadata"], "namespace": self._namespace}})
        try:
            deadline = time.monotonic() + _READER_S
            while (phase := self._read("get", "pod", pod, "-o", "jsonpath={.status.phase}")) not in _PODS_OVER:
                if time.monotonic() > deadline:
                    raise ClusterError(f"the pod that reads the logs has not ended ({phase or 'no state'})")
                time.sleep(_POLL_S)
            return self._read("logs", pod)
        finally:
            self._read("delete", "pod", pod, "--wait=false", "--ignore-not-found")

    def _read(self, *command: str) -> str:
        """What ``kubectl`` prints."""
        return _printed(self._run(list(command), None), command[0])

    def _write(self, command: list[str], document: dict[str, Any]) -> None:
        what = f" for the {document['kind']} {document['metadata']['name']}"
        _printed(self._run([*command, "-f", "-"], as_yaml(document)), command[0], what)

    def _run(self, command: list[str], text: str | None) -> subprocess.CompletedProcess[str]:
        with _kubectl_needed():
            return subprocess.run(  # noqa: S603
                self._line(command), input=text or "", capture_output=True, text=True, check=False
            )

    @contextmanager
    def _started(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        with _kubectl_needed():
            process = subprocess.Popen(  # noqa: S603
                self._line(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, errors="replace",
            )  # fmt: skip
        with process:
            try:
                yield process
            except BaseException:
                process.terminate()
                raise

    def _line(self, command: list[str]) -> list[str]:
        return ["kubectl", "-n", self._namespace, *command]


_PODS_OVER = ("Succeeded", "Failed")
_PLACEMENT = (
    "serviceAccountName",
    "imagePullSecrets",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "runtimeClassName",
    "priorityClassName",
    "schedulerName",
)
"""Fields of a pod that decide where it can start, and with whose image."""


def _essence(spec: Mapping[str, Any]) -> object:
    """What a RayJob of ``gpo submit`` runs: the command, the ConfigMap and the image."""
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    maps = [volume["configMap"]["name"] for volume in head["volumes"] if "configMap" in volume]
    return spec["entrypoint"], sorted(maps), head["containers"][0]["image"]


def _reader(
    name: str, head: Mapping[str, Any], storage: Mapping[str, Any], image: str | None, current: str
) -> dict[str, Any]:
    """A pod that prints the logs of a RayJob's earlier attempts. It can start wherever the head can; no network."""
    container = head["containers"][0]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-logs-{secrets.token_hex(3)}",
            "labels": {"app.kubernetes.io/name": "gpo-logs", "app.kubernetes.io/part-of": "gpo"},
        },
        "spec": {
            **{field: head[field] for field in _PLACEMENT if field in head},
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _READER_S,
            "automountServiceAccountToken": False,
            "securityContext": head["securityContext"],
            "containers": [
                {
                    "name": "logs",
                    "image": image or container["image"],
                    "imagePullPolicy": container.get("imagePullPolicy", "IfNotPresent"),
                    "command": ["python", "-m", "cluster.submitting.stored_logs", name, current],
                    "securityContext": container["securityContext"],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "64Mi"},
                        "limits": {"cpu": "500m", "memory": "256Mi"},
                    },
                    "volumeMounts": [{"name": "storage", "mountPath": "/storage", "readOnly": True}],
                }
            ],
            "volumes": [dict(storage)],
        },
    }


@contextmanager
def _kubectl_needed() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError("--kubernetes", "kubectl is not installed", "install it, or print the objects only") from None


def _printed(done: subprocess.CompletedProcess[str], command: str, what: str = "") -> str:
    if done.returncode:
        reason = first_line(done.stderr) or "it gave no reason"
        raise ClusterError(f"kubectl {command} failed{what}: {reason}")
    return done.stdout
