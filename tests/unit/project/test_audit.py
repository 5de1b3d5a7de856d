"""The audit of dependencies, with the real pip-audit and an advisory service of this test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.servers import HttpServer

AUDIT = ROOT / ".ci" / "audit.py"
FLAW = """{"vulns": [{"id": "GHSA-test", "aliases": ["CVE-2020-1"], "summary": "A hole.", "details": "A hole.",
"affected": [{"package": {"name": "msgpack", "ecosystem": "PyPI"}, "versions": ["1.0.0"],
"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}]}]}]}"""


@pytest.fixture
def advisories() -> Iterator[str]:
    """The URL of a service with the same answer for every package."""
    with closing(HttpServer(lambda *_: FLAW.encode())) as server:
        yield f"{server.url}/v1/query"


def audit(folder: Path, url: str, *ignored: str) -> subprocess.CompletedProcess[str]:
    lock, ignore = folder / "requirements.lock", folder / "ignore.txt"
    lock.write_text(f"msgpack==1.0.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    ignore.write_text("# a comment\n" + "".join(f"{one} # not relevant\n" for one in ignored), encoding="utf-8")
    command = [sys.executable, str(AUDIT), "--lock", str(lock), "--ignore", str(ignore)]
    command += ["--vulnerability-service", "osv", "--osv-url", url, "--timeout", "5"]
    command += ["--cache-dir", str(folder / "cache")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_known_vulnerability_fails(advisories: str, tmp_path: Path) -> None:
    done = audit(tmp_path, advisories)
    assert done.returncode == 1, done.stderr
    assert "msgpack 1.0.0: CVE-2020-1; mended in 1.0.1" in done.stdout or "GHSA-test; mended in 1.0.1" in done.stdout


def test_an_ignored_vulnerability_passes(advisories: str, tmp_path: Path) -> None:
    done = audit(tmp_path, advisories, "CVE-2020-1")
    assert (done.returncode, done.stdout) == (0, "audit: 1 packages, 0 known vulnerabilities\n")


def test_an_audit_without_a_network_passes_and_says_so(unused_tcp_port: int, tmp_path: Path) -> None:
    done = audit(tmp_path, f"http://127.0.0.1:{unused_tcp_port}/v1/query")
    assert done.returncode == 0
    assert "not done, the advisories cannot be reached" in done.stdout
