"""The ``Dockerfile`` and ``make image``."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cluster.submitting.image import failures, own_modules, required_modules
from tests.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
_CHECK = "python -m cluster.submitting.image"


def lacks(dockerfile: str) -> list[str]:
    """What the last stage of a Dockerfile lacks."""
    last = dockerfile.rpartition("\nFROM ")[2]
    installed = re.findall(r"apt-get install [^\\&]*", last)
    found = (
        [] if any("libgomp1" in line.split() for line in installed) else ["libgomp1, which the embedded model needs"]
    )
    # The check runs as the user of the image, on the files of the image.
    order = [last.find(text) for text in ("COPY --from=build /opt/venv", "USER 10001", _CHECK)]
    return found + ([] if -1 < order[0] < order[1] < order[2] else ["a check of what can be imported"])


def test_the_image_has_the_libraries_and_checks_them() -> None:
    assert lacks(DOCKERFILE) == []


@pytest.mark.parametrize("old", [" libgomp1", _CHECK])
def test_a_mutant_of_the_dockerfile_is_found(old: str) -> None:
    assert lacks(DOCKERFILE.replace(old, "")) != []


def test_the_check_covers_the_libraries_of_runs_and_every_module() -> None:
    # xllamacpp is the library that needs libgomp1.
    assert {"xllamacpp", "wordllama", "ray", "optuna", "matplotlib", "redis", "s3fs", "psycopg"} <= set(
        required_modules()
    )
    assert {"serve.embedded_model", "cluster.runs.run", "actors.supervisor"} <= set(own_modules())


def test_the_check_reports_what_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise ImportError('libgomp.so.1: cannot open')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert failures(["json", "broken_library"]) == ["broken_library: ImportError: libgomp.so.1: cannot open"]


@pytest.mark.parametrize(("engine", "used"), [(True, "docker build"), (False, "buildah bud")])
def test_buildah_builds_where_docker_has_no_engine(
    engine: bool,
    used: str,
    tmp_path: Path,
) -> None:
    for program in ("docker", "buildah"):
        path = tmp_path / program
        answer = f"[ $1 != info ] || exit {0 if engine else 1}\n" if program == "docker" else ""
        path.write_text(f"#!/bin/sh\n{answer}echo {program} $*\n", encoding="utf-8")
        path.chmod(0o755)
    # What a make that runs the tests tells the makes below it would change their output.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "image", "IMAGE=gpo:dev"],
        cwd=ROOT, env={**inherited, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith(f"{used} -t gpo:dev .")
