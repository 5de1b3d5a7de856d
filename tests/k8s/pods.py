"""The pod templates of an object, and the ``restricted`` level of the Pod Security Standards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip


@dataclass(frozen=True)
class PodTemplate:
    """A pod template and its path in the object."""

    path: str
    metadata: dict[str, Any]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pod_templates(item: dict[str, Any]) -> list[PodTemplate]:
    """All pod templates of an object; that of a head includes the autoscaler, which KubeRay adds to it."""
    return list(_templates(item, f"{item['kind']}/{item['metadata']['name']}"))


def _templates(value: Any, path: str, sidecar: dict[str, Any] | None = None) -> Iterator[PodTemplate]:
    if isinstance(value, dict):
        if value.get("enableInTreeAutoscaling"):
            sidecar = {"name": "autoscaler", **value.get("autoscalerOptions", {})}
        if isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
            spec = value["spec"]
            if sidecar is not None and path.endswith("headGroupSpec.template"):
                spec = {**spec, "containers": [*spec["containers"], sidecar]}
            yield PodTemplate(path, value.get("metadata", {}), spec)
            return
        for key, below in value.items():
            yield from _templates(below, f"{path}.{key}", sidecar)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _templates(below, f"{path}[{index}]", sidecar)


def violations(pod: PodTemplate) -> Sequence[str]:
    """Everything in the pod that the ``restricted`` level refuses, with its path."""
    return [f"{pod.path}: {finding}" for finding in (*_pod_violations(pod.spec), *_container_violations(pod))]


def _pod_violations(spec: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", []):
        if bad := set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {sorted(bad)}"
    context = spec.get("securityContext", {})
    if context.get("runAsUser") == 0:
        yield "runAsUser 0"
    if bad := {one["name"] for one in context.get("sysctls", [])} - _SYSCTLS:
        yield f"sysctls {sorted(bad)}"
    if "windowsOptions" in context:
        yield "windowsOptions"


def _container_violations(pod: PodTemplate) -> Iterator[str]:
    of_pod = pod.spec.get("securityContext", {})
    for container in pod.containers:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: allowPrivilegeEscalation"
        if context.get("privileged"):
            yield f"{container['name']}: privileged"
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{container['name']}: capabilities"
        if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True or context.get("runAsUser") == 0:
            yield f"{container['name']}: runAsNonRoot"
        seccomp = context.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type")
        if seccomp not in ("RuntimeDefault", "Localhost"):
            yield f"{container['name']}: seccompProfile {seccomp}"
        if context.get("procMount", "Default") != "Default":
            yield f"{container['name']}: procMount"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{container['name']}: hostPort"
