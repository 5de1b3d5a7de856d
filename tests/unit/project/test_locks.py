"""The lock files: one for development, and one with the part of it that the image needs."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

_PIN = re.compile(r"^(\S+)==(\S+)[^\n]*((?:\n +--hash=\S+(?: \\)?)+)", re.MULTILINE)
_IMAGE_EXTRAS = ("redis", "s3", "postgresql", "cmaes")


def _locked(name: str) -> dict[tuple[str, str], set[str]]:
    """Package and version → the hashes of its files."""
    found = _PIN.findall((ROOT / name).read_text(encoding="utf-8"))
    return {(package, version): set(re.findall(r"--hash=(\S+)", hashes)) for package, version, hashes in found}


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _names(requirements: list[Any]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements if isinstance(one, str)}


@pytest.fixture
def image() -> dict[tuple[str, str], set[str]]:
    locked = _locked("requirements-runtime.lock")
    assert len(locked) > 100
    return locked


def test_the_image_has_the_tested_versions(image: dict[tuple[str, str], set[str]]) -> None:
    everything = _locked("requirements.lock")
    assert {pin: hashes for pin, hashes in image.items() if everything.get(pin) != hashes} == {}


def test_the_image_has_the_program_s_dependencies_and_no_tools(image: dict[tuple[str, str], set[str]]) -> None:
    project = _project()
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    needed = _names([*project["project"]["dependencies"], *(one for extra in _IMAGE_EXTRAS for one in extras[extra])])
    there = {name for name, _ in image}
    assert needed | _names(groups["build"]) <= there
    assert (_names(groups["dev"]) - needed) & there <= {"cryptography", "jsonschema"}, "tools that nothing needs"


def test_the_image_is_built_from_its_lock_file() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes --no-deps -r requirements-runtime.lock" in dockerfile
    assert "requirements.lock" not in dockerfile
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"IMAGE_EXTRAS ?= {' '.join(_IMAGE_EXTRAS)}\n" in makefile
