from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpo.runtime import process
from gpo.runtime.process import ProcessIdentity, usable_cores
from tests.paths import ROOT

PRINT_IDENTITY = (
    "from gpo.runtime.process import ProcessIdentity; print(ProcessIdentity.current().encode(), flush=True); input()"
)


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_process_has_ended_once_it_was_killed_and_not_before(is_reaped: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PRINT_IDENTITY], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        identity = ProcessIdentity.parse(process.stdout.readline().rstrip("\n"))
        assert identity is not None
        assert identity.pid == process.pid
        assert not identity.has_certainly_ended
        process.kill()
        process.stdout.read()
        if is_reaped:
            process.wait()
        while not identity.has_certainly_ended:
            assert not is_reaped


def test_a_reused_process_id_is_not_mistaken_for_the_earlier_process() -> None:
    current = ProcessIdentity.current()
    assert not current.has_certainly_ended
    assert replace(current, started="1").has_certainly_ended
    assert replace(current, pid=2**30).has_certainly_ended


def test_a_process_that_cannot_be_inspected_does_not_count_as_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    current = ProcessIdentity.current()
    with monkeypatch.context() as hidden:
        hidden.setattr("gpo.runtime.process._PROC", Path("/hidden"))  # as where other users' processes are hidden
        assert not current.has_certainly_ended
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))  # no file can be opened
    try:
        assert not current.has_certainly_ended
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("unknown", [{"started": None}, {"space": None}, {"space": "elsewhere"}])
def test_a_process_that_is_not_local_does_not_count_as_ended(unknown: dict[str, str | None]) -> None:
    identity = replace(ProcessIdentity.current(), pid=2**30, **unknown)  # type: ignore[arg-type]
    assert not identity.is_local
    assert not identity.has_certainly_ended


@pytest.mark.parametrize("started", ["5", None])
def test_an_identity_can_be_stored_as_text(started: str | None) -> None:
    identity = replace(ProcessIdentity.current(), started=started)
    assert ProcessIdentity.parse(identity.encode()) == identity
    assert str(identity) == f"process {identity.pid} on {identity.host}"


@pytest.mark.parametrize("text", ["", "elsewhere x 1 host", "no identity"])
def test_any_other_text_is_not_an_identity(text: str) -> None:
    assert ProcessIdentity.parse(text) is None


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {}, 4),
        ("0::/\n", {"cpu.max": "max 100000"}, 4),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000"}, 4),
        ("0::/a.slice/b.scope\n", {"a.slice/cpu.max": "200000 100000", "a.slice/b.scope/cpu.max": "max 100000"}, 2),
        ("0::/on/the/host\n", {"cpu.max": "300000 100000"}, 3),
        ("4:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "150000", "cpu/job/cpu.cfs_period_us": "50000"}, 3),
        ("4:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "50000"}, 4),
        ("0::/\n", {"cpu.max": "nonsense"}, 4),
    ],
)
def test_the_cores_are_those_that_affinity_and_control_groups_allow(
    groups: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    for name, content in {
        "proc/self/cgroup": groups,
        **{f"cgroup/{name}": text for name, text in files.items()},
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(process, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(process, "_CGROUPS", tmp_path / "cgroup")
    assert usable_cores() == cores


def test_without_control_groups_affinity_alone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert usable_cores() == 1
