"""``k8s/uninstall.sh``, with a program in place of ``kubectl``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.k8s.conftest import K8S

_KUBECTL = """#!/bin/sh
# A cluster with two objects. A RayCluster cannot be deleted while its namespace is.
echo "$*" >> "$LOG"
case "$*" in
  "get namespace gpo "*)
    [ "$PHASE" != unreachable ] || { echo "connection refused" >&2; exit 1; }
    printf '%s' "$PHASE" ;;
  *"get rayjobs.ray.io -o name") [ -e "$STATE/rayjob" ] && echo rayjob.ray.io/first || true ;;
  *"get rayclusters.ray.io -o name") [ -e "$STATE/raycluster" ] && [ "$PHASE" = flaky ] && echo "timeout" >&2 && exit 1
    [ -e "$STATE/raycluster" ] && echo raycluster.ray.io/gpo-shared || true ;;
  *"get raycronjobs.ray.io -o name") echo "the server doesn't have a resource type" >&2; exit 1 ;;
  *"delete rayjob.ray.io/first "*) rm "$STATE/rayjob" ;;
  *"delete raycluster.ray.io/gpo-shared "*)
    [ "$PHASE" = Active ] || { echo "timed out waiting for the condition" >&2; exit 1; }
    rm "$STATE/raycluster" ;;
  *"patch raycluster.ray.io/gpo-shared "*finalizers*null*) rm "$STATE/raycluster" ;;
  "delete namespace gpo "*) [ -z "$(ls "$STATE")" ] || { echo "it would hang" >&2; exit 1; } ;;
esac
"""


def _uninstall(folder: Path, phase: str, *options: str, script: str | None = None, typed: str = "") -> tuple[int, str]:
    """The exit code, and the commands that kubectl got."""
    state, log, program = folder / "state", folder / "log", folder / "bin/kubectl"
    for one in (state, program.parent):
        one.mkdir()
    for name in ("rayjob", "raycluster"):
        (state / name).touch()
    program.write_text(_KUBECTL, encoding="utf-8")
    program.chmod(0o755)
    path = folder / "uninstall.sh"
    path.write_text(script or (K8S / "uninstall.sh").read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        ["sh", str(path), "gpo", *options],
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "LOG": str(log), "STATE": str(state),
             "PHASE": phase},
        input=typed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, log.read_text(encoding="utf-8")


@pytest.mark.parametrize("phase", ["Active", "Terminating"])
def test_clusters_end_before_their_namespace(phase: str, tmp_path: Path) -> None:
    code, asked = _uninstall(tmp_path, phase, "--yes")
    assert code == 0
    assert ("finalizers" in asked) == (phase == "Terminating")


def test_a_mutant_that_deletes_the_namespace_first_is_found(tmp_path: Path) -> None:
    lines = (K8S / "uninstall.sh").read_text(encoding="utf-8").splitlines(keepends=True)
    (last,) = [line for line in lines if line.startswith("kubectl delete namespace")]
    before = next(index for index, line in enumerate(lines) if line.startswith("for kind"))
    code, _ = _uninstall(tmp_path, "Active", "--yes", script="".join([*lines[:before], last, *lines[before:]]))
    assert code != 0


def test_nothing_is_deleted_without_consent(tmp_path: Path) -> None:
    code, asked = _uninstall(tmp_path, "Active", typed="gpo-other\n")
    assert code == 1
    assert "delete" not in asked


@pytest.mark.parametrize(("phase", "expected"), [("", 0), ("unreachable", 1)])
def test_a_namespace_that_is_gone_is_not_one_that_cannot_be_read(phase: str, expected: int, tmp_path: Path) -> None:
    code, asked = _uninstall(tmp_path, phase, "--yes")
    assert code == expected
    assert "delete" not in asked


def test_a_namespace_whose_clusters_cannot_be_listed_stays(tmp_path: Path) -> None:
    code, asked = _uninstall(tmp_path, "flaky", "--yes")
    assert code == 1
    assert "delete namespace" not in asked
