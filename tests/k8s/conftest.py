"""The objects that ``kubectl kustomize`` builds from each folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT

K8S = ROOT / "k8s"
PLATFORM = "base/platform"
OVERLAYS = sorted(path.parent.relative_to(K8S).as_posix() for path in K8S.glob("overlays/*/kustomization.yaml"))
BASES = sorted(path.parent.relative_to(K8S).as_posix() for path in K8S.glob("base/**/kustomization.yaml"))
BUILT = [*BASES, *OVERLAYS, "monitoring"]
CRDS = Path(os.environ.get("GPO_CRDS", ROOT.parent / "shared" / "k8s" / "crds"))


@pytest.fixture(autouse=True, scope="session")
def _kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")


@cache
def build(folder: str) -> list[dict[str, Any]]:
    """The objects of a kustomization; do not modify them.

    Args:
        folder: below ``k8s``, or an absolute path.
    """
    done = subprocess.run(["kubectl", "kustomize", str(K8S / folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


def named(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """The only object of this kind, or of this kind and name."""
    (found,) = [item for item in objects if item["kind"] == kind and (name is None or item["metadata"]["name"] == name)]
    return found
