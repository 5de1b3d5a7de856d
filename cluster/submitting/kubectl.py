"""A run's objects are handed to Kubernetes by ``kubectl``, which has the user's rights."""

from __future__ import annotations

import subprocess
from typing import Any

from cluster.submitting.kubernetes import Manifest, as_yaml
from gpo.errors import ClusterError, ConfigError


def apply(manifest: Manifest) -> None:
    """Make the ConfigMap, and once it is there the RayJob.

    Raises:
        ConfigError: ``kubectl`` is not installed.
        ClusterError: it was refused; what it said has been shown.
    """
    # One that is there has the same content: its name says so. On the server's side, since kubectl's own side copies an
    # object into an annotation of it, and annotations hold a quarter of what a ConfigMap does.
    if _kubectl(["apply", "--server-side", "--force-conflicts"], manifest.config_map):
        raise ClusterError("kubectl did not apply the ConfigMap, and so no RayJob; what it said stands above")
    # Not applied: a RayJob runs once, and one that is there would take the change and go on as it was, or stay over.
    if _kubectl(["create"], manifest.job):
        name, namespace = manifest.job["metadata"]["name"], manifest.job["metadata"]["namespace"]
        raise ClusterError(
            "kubectl did not create the RayJob; what it said stands above. Where there is one of that name, delete it "
            f"to go on with its run: kubectl -n {namespace} delete rayjob {name}"
        )


def _kubectl(command: list[str], document: dict[str, Any]) -> int:
    """Its exit code."""
    try:
        done = subprocess.run(["kubectl", *command, "-f", "-"], input=as_yaml(document), text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        raise ConfigError("--apply", "kubectl is not installed", "install it, or leave the option out") from None
    return done.returncode
