"""The command ``gpo``, as a process or in this process."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from unittest.mock import patch
from uuid import uuid4

import pytest

from tests.paths import ROOT

if TYPE_CHECKING:
    from actors.search import SearchKey
    from gpo.checkpoint import Checkpoint

_NOT_INHERITED = ("OPENAI_", "RAY_", "GPO_")
_MARK = "TEST_PROCESS_MARK"


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a command."""

    code: int
    stdout: str
    stderr: str


class RunGpo(Protocol):
    """Runs a command to its end."""

    def __call__(self, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> Finished: ...


@dataclass(frozen=True, slots=True)
class Started:
    """A running command, which leads a session and a process group."""

    process: subprocess.Popen[str]
    mark: str

    def interrupt(self) -> None:
        """Send SIGINT to every process of the group, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> float:
        """Send SIGKILL to the command and to every process that it started; the monotonic time before, in seconds."""
        now_s = time.monotonic()
        for number in (self.process.pid, *self.numbers()):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return now_s

    def finish(self, timeout_s: float = 180) -> Finished:
        """Wait for the end, and check that no traceback was printed."""
        stdout, stderr = self.process.communicate(timeout=timeout_s)
        assert "Traceback" not in stdout + stderr, stderr
        return Finished(self.process.returncode, stdout, stderr)

    def survivors(self) -> list[str]:
        """The command lines of all processes that the command started, directly or not, and that still run."""
        found = []
        for number in self.numbers():
            with suppress(OSError):
                line = Path(f"/proc/{number}/cmdline").read_bytes()
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def numbers(self) -> list[int]:
        """The process IDs of those processes."""
        return processes_with(_MARK, self.mark)


def announced_url(server: Started) -> str:
    """The base URL that ``gpo serve`` prints once it answers requests."""
    assert server.process.stderr is not None
    printed = ""
    for line in server.process.stderr:
        printed += line
        if found := re.search(r"at (http://127\.0\.0\.1:\d+)/v1/evaluate", line):
            return found[1]
    raise AssertionError(printed)


def processes_with(variable: str, value: str) -> list[int]:
    """The IDs of the processes that were started with this environment variable."""
    wanted, found = f"{variable}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@dataclass(slots=True)
class Gpo:
    """Starts ``gpo`` as a process, without the environment variables that would change its behaviour."""

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
        """Start it in the background; ``end`` kills it if it still runs."""
        mark = uuid4().hex
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=cwd,
            env={**_inherited(), "PYTHONPATH": str(ROOT), _MARK: mark, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(Started(process, mark))
        return self.started[-1]

    def end(self) -> None:
        """Kill the commands that still run."""
        for command in self.started:
            if command.process.poll() is None:
                os.killpg(command.process.pid, signal.SIGKILL)
                command.process.communicate()


def gpo_in_this_process(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> Finished:
    """Run a command that neither starts Ray nor waits for a signal, within a fraction of a second.

    The working directory, the environment and the loggers are afterwards as they were before.
    """
    import ray
    from typer.testing import CliRunner

    from cluster.cli.app import app

    # With Ray's own settings of these tests: a token is there already.
    kept = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
    with (
        pytest.MonkeyPatch.context() as patched,
        patch.dict(os.environ, {**_inherited(), **kept, **(env or {})}, clear=True),
        _restored_loggers(),
    ):
        patched.chdir(cwd)
        patched.setattr(ray, "init", _refuse_to_start)
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Finished(result.exit_code, result.stdout, result.stderr)


def searched(config_path: Path, overrides: Sequence[str] = ()) -> dict[SearchKey, Checkpoint]:
    """The result of each search of a configuration, from the plain optimization loop; the best prompt is tested."""
    from cluster.config.loading import load_config
    from cluster.runs.searches import build_searches
    from cluster.session.models import Access, build_evaluators, build_tasks
    from gpo.checkpoint import Checkpoint
    from gpo.data.task import Split
    from gpo.limits.limiter import LocalLimiter

    async def search() -> dict[SearchKey, Checkpoint]:
        config = load_config(config_path, overrides)
        tasks, access = build_tasks(config), Access({}, LocalLimiter(), "alone")
        evaluators = {evaluator.task.name: evaluator for evaluator in build_evaluators(config, tasks, access)}
        found = {}
        for search in build_searches(config, tasks, evaluators, access):
            trajectory = await search.gpo.start(search.initial)
            async for later in search.gpo.run(trajectory):
                trajectory = later
            best = trajectory.best.prompt
            (test,) = await evaluators[search.key.task].evaluate([best], Split.TEST)
            found[search.key] = Checkpoint(trajectory, {best.id: test})
        return found

    return asyncio.run(search())


def best_without_a_cluster(config_path: Path) -> dict[tuple[str, int], tuple[str, float, float]]:
    """Task and seed → the best prompt with its scores on val and test, from ``searched``."""
    return {
        (key.task, key.seed): (best.prompt.text, round(best.score.mean, 4), round(test.score.mean, 4))
        for key, checkpoint in searched(config_path).items()
        for best, (test,) in [(checkpoint.trajectory.best, checkpoint.test.values())]
    }


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}


def _refuse_to_start(*arguments: object, **options: object) -> None:
    raise AssertionError("the command starts Ray")


@contextmanager
def _restored_loggers() -> Iterator[None]:
    from cluster.display import logs

    chosen, root = logs.chosen(), logging.getLogger()
    loggers = [root, *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    levels = {logger: logger.level for logger in loggers}
    # Out of reach of `basicConfig(force=True)`, which closes the handlers that it replaces.
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers
        for logger, level in levels.items():
            logger.setLevel(level)
        logs._chosen = chosen
