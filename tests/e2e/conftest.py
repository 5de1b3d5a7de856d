"""The command as users run it: a process of its own, an endpoint over HTTP, a Ray cluster on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
import yaml

from benchmarks.simulated_endpoint import SimulatedEndpoint
from tests.paths import ROOT

TRIAGE = ROOT / "tests" / "data" / "triage"
_NOT_INHERITED = ("OPENAI_", "RAY_", "GPO_")
_MARK = "TEST_PROCESS_MARK"


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Started:
    """A command that is still running, in a session and process group of its own."""

    process: subprocess.Popen[str]
    mark: str

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self, timeout_s: float = 180) -> Finished:
        """Wait for the end; no traceback may have been printed by then."""
        stdout, stderr = self.process.communicate(timeout=timeout_s)
        assert "Traceback" not in stdout + stderr, stderr
        return Finished(self.process.returncode, stdout, stderr)

    def survivors(self) -> list[str]:
        """The command lines of the processes that it started, at any remove, and that are still there."""
        found = []
        for number in self.numbers():
            with suppress(OSError):
                line = Path(f"/proc/{number}/cmdline").read_bytes()
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def numbers(self) -> list[int]:
        """Of those processes."""
        wanted, found = f"{_MARK}={self.mark}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found


@dataclass(slots=True)
class Gpo:
    """The ``gpo`` command, with nothing in its environment that the one who tests happens to have there."""

    started: list[Started] = field(default_factory=list)

    def __call__(
        self, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 180
    ) -> Finished:
        """Run it to its end."""
        return self.start(*arguments, cwd=cwd, env=env).finish(timeout_s)

    def start(
        self,
        *arguments: object,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "cluster.cli"),
    ) -> Started:
        """Run it in the background; it is ended with the test that started it, at the latest."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        mark = uuid4().hex
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=cwd,
            env={**inherited, "PYTHONPATH": str(ROOT), _MARK: mark, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(Started(process, mark))
        return self.started[-1]

    def end(self) -> None:
        """End what is still running."""
        for command in self.started:
            if command.process.poll() is None:
                os.killpg(command.process.pid, signal.SIGKILL)
                command.process.communicate()


class Until(Protocol):
    def __call__(self, condition: Callable[[], bool], what: str, *, timeout_s: float = 120) -> None: ...


class WriteConfig(Protocol):
    def __call__(self, folder: Path, base_url: str | None, **changes: Any) -> Path: ...


@pytest.fixture(scope="module")
def gpo() -> Iterator[Gpo]:
    command = Gpo()
    yield command
    command.end()


@pytest.fixture
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="session")
def write_config() -> WriteConfig:
    """Writes a small configuration with the keyword arguments put over its sections.

    ``tasks`` holds one dictionary per task, each put over the triage task. Completions are kept beside the
    configuration: an endpoint of another test may have had the same port.
    """

    def write(folder: Path, base_url: str | None, **changes: Any) -> Path:
        changes.setdefault("cache", {"path": str(folder / "completions.sqlite")})
        changes["tasks"] = [_merged(_triage(), task) for task in changes.get("tasks", [{}])]
        config = _merged(_small_config(base_url), changes)
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def until() -> Until:
    """Waits for a condition, as long as a deadline allows."""

    def wait(condition: Callable[[], bool], what: str, *, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain until {what}"
            time.sleep(0.02)

    return wait


def _small_config(base_url: str | None) -> dict[str, Any]:
    place = {"base_url": base_url} if base_url else {}
    return {
        "run": {"name": "triage", "seeds": [0, 1]},
        "models": {
            "task": {**place, "model": "task-model", "sampling": {"max_tokens": 64}},
            "optimizer": {**place, "model": "opt-model", "sampling": {"max_tokens": 512}},
        },
        "optimizer": {"steps": 3, "candidates": 3},
        "evaluation": {"val_size": 20, "test_size": 30},
    }


def _triage() -> dict[str, Any]:
    return {
        "name": "triage",
        "data": {split: str(TRIAGE / f"{split}.jsonl") for split in ("train", "val", "test")},
        "fields": {"input": "text", "target": "label"},
        "prompt": "Classify the support ticket into one of: billing, technical, shipping, account.",
        "position": "question_begin",
        "answer": {"kind": "exact"},
    }


def _merged(config: Any, changes: Any) -> Any:
    if isinstance(config, dict) and isinstance(changes, dict):
        return {**config, **{name: _merged(config.get(name), value) for name, value in changes.items()}}
    return changes
