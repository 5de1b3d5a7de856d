"""Stands in for ``kubectl`` and a cluster: objects in memory, with the rules of the API server that matter here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster.submitting.ray_jobs import RayJobs


class _Refused(Exception):
    """What ``kubectl`` prints to its standard error."""


class FakeCluster:
    """The objects of a namespace, which ``RayJobs`` reads and writes from now on.

    Attributes:
        commands: those that changed something.
        refuses: a kind of object that may not be created.
        output: pod → what it has written; the pod that reads stored logs is ``stored``.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.commands: list[str] = []
        self.refuses = ""
        self.output: dict[str, str] = {}
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}

        def run(_: RayJobs, command: list[str], text: str | None) -> subprocess.CompletedProcess[str]:
            try:
                return subprocess.CompletedProcess(command, 0, self._answer(command, text), "")
            except _Refused as refusal:
                return subprocess.CompletedProcess(command, 1, "", f"Error from server ({refusal})\n")

        @contextmanager
        def started(_: RayJobs, command: list[str]) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(stdout=self._answer(command, None).splitlines(keepends=True), returncode=0)

        patch.setattr(RayJobs, "_run", run)
        patch.setattr(RayJobs, "_started", started)

    def object(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, if it is there."""
        return self._objects.get((kind, name))

    def report(self, name: str, **status: Any) -> None:
        """Set the status of a RayJob, as KubeRay does."""
        self._objects["RayJob", name]["status"] = status

    def _answer(self, command: list[str], text: str | None) -> str:
        if command[0] in ("apply", "create", "delete", "patch"):
            self.commands.append(" ".join(command))
        match command:
            case ["get", "rayjobs.ray.io", name, *_]:
                return json.dumps(self._objects["RayJob", name]) if ("RayJob", name) in self._objects else ""
            case ["get", "pods", "-l", selector, *_]:
                job = selector.rpartition("=")[2]
                return "".join(f"{pod}\n" for pod in self.output if pod.startswith(f"{job}-submitter-"))
            case ["get", "pod", *_]:
                return "Succeeded"
            case ["logs", pod, *_]:
                return self.output["stored" if ("Pod", pod) in self._objects else pod]
            case ["delete", "rayjobs.ray.io", name, *_]:
                del self._objects["RayJob", name]
            case ["delete", "pod", name, *_]:
                del self._objects["Pod", name]
            case ["patch", "rayjobs.ray.io", name, _, "-p", change]:
                spec = self._objects["RayJob", name]["spec"]
                spec |= json.loads(change)["spec"]
                if spec["suspend"]:  # KubeRay deletes the cluster then, which takes a while
                    self.report(name, jobDeploymentStatus="Suspended")
            case ["apply" | "create" as how, *_]:
                self._put(how, yaml.load(text or "", Loader=yaml.CSafeLoader))
            case _:
                raise AssertionError(command)
        return ""

    def _put(self, how: str, item: dict[str, Any]) -> None:
        key = item["kind"], item["metadata"]["name"]
        known = self._objects.get(key)
        if item["kind"] == self.refuses:
            raise _Refused("Forbidden")
        if known is not None and how == "create":
            raise _Refused("AlreadyExists")
        if known is not None and known.get("immutable"):
            for part in ("data", "binaryData"):
                if known.get(part) != item.get(part):
                    raise _Refused(f"Invalid): {part}: field is immutable (")
        # The API server drops empty maps of a ConfigMap.
        self._objects[key] = {name: value for name, value in item.items() if value != {}}
