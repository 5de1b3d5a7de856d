"""Ask for known vulnerabilities of what ``requirements.lock`` pins; fail where there is one.

Where the advisories cannot be reached, says so and passes: being offline is no vulnerability. ``pip-audit`` alone would
fail there, or, before a mirror of PyPI that has no advisories, report that nothing is known.

``python .ci/audit.py [--lock FILE] [--ignore FILE] [options of pip-audit …]``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_TIMEOUT_S = 300


def main() -> int:
    """0 without a known vulnerability, 1 with one."""
    parser = argparse.ArgumentParser(description="Audit the locked dependencies.")
    parser.add_argument("--lock", type=Path, default=_HERE.parent / "requirements.lock")
    parser.add_argument("--ignore", type=Path, default=_HERE / "audit-ignore.txt")
    settings, options = parser.parse_known_args()
    report, problem = _audit(settings.lock, options)
    if report is None:
        return _say(0, [f"audit: not done, the advisories cannot be reached ({problem})"])
    known = [entry for entry in report["dependencies"] if "vulns" in entry]
    missed = len(report["dependencies"]) - len(known)
    if not known:
        return _say(0, [f"audit: not done, none of {missed} packages is known where the advisories should be"])
    ignored = _ignored(settings.ignore)
    found = [
        f"audit: {entry['name']} {entry['version']}: {flaw['id']}; mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version'}"
        for entry in known
        for flaw in entry["vulns"]
        if not ignored & {flaw["id"], *flaw["aliases"]}
    ]
    summary = f"audit: {len(known)} packages, {len(found)} known vulnerabilities"
    return _say(
        1 if found else 0, [*found, summary + (f"; {missed} packages could not be asked for" if missed else "")]
    )


def _audit(lock: Path, options: Sequence[str]) -> tuple[Any, str]:
    """pip-audit's report, or else what it says."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--require-hashes"]
        command += ["--format", "json", "--output", str(written), "--progress-spinner", "off", *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return None, f"no answer within {_TIMEOUT_S} s"
        if written.exists() and (content := written.read_text(encoding="utf-8")):
            return json.loads(content), ""
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]


def _ignored(path: Path) -> set[str]:
    """One identifier a line, with a reason after ``#``."""
    if not path.exists():
        return set()
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def _say(code: int, lines: Sequence[str]) -> int:
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
