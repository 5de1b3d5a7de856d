"""The runs of ``gpo serve``: accepted over HTTP, carried out in one process, and resumed when the service starts again.

Each run is a folder below the folder of runs. Its file ``request.json`` holds the request, and how the run has ended.
It is written before the client gets a reply, and a run without an end in it is resumed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actors.folder import Folder
from actors.lease import Leases
from cluster.api.keywords import Arguments
from cluster.api.optimize import run_in_this_process
from cluster.api.progress import SilentView
from cluster.config import RunConfig
from cluster.results.outputs import best_prompts
from cluster.results.status import run_status, status_document
from cluster.results.stored_run import RunReader, StoredRun, json_object
from cluster.runs.run_folder import RunFolder, new_run_id, take_lease
from cluster.runs.stop_file import stop_requested
from cluster.serving.posted import Terms, read_posted
from cluster.session.models import EmbeddedUrls, build_tasks
from gpo.errors import ConfigError, GPOError
from gpo.limits.limiter import Limiter
from gpo.limits.messages import Spent
from gpo.text import one_line
from serve.runs import Document, NoResult, RefusedRun, TooManyRuns, UnknownRun

log = logging.getLogger(__name__)

REQUEST_FILE = "request.json"
_MAX_WAITING = 1000
_MAX_CRASHES = 5
"""How often the process may die while a run works, before the run counts as the cause."""
_STOP_S = 30.0
_READINGS = 3
_SHOWN = 1000
_TRAJECTORY = ("task", "seed", "steps", "of_steps", "initial", "best", "done", "stopped_by", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service is started with. Pickles.

    Attributes:
        config: the service's own configuration.
        folder: the folder of runs, absolute and without links.
        allow_dir: see ``Terms``.
        max_runs: runs that work at once.
        limiter: shared by all runs and the evaluator.
        urls: addresses of the embedded models.
    """

    config: RunConfig
    folder: Path
    allow_dir: Path | None
    max_runs: int
    limiter: Limiter
    urls: EmbeddedUrls = field(default_factory=dict)

    @property
    def terms(self) -> Terms:
        """What a request may name."""
        return Terms(self.config, self.allow_dir, frozenset(self.urls))


@dataclass(slots=True)
class _Request:
    """The content of ``request.json``.

    Attributes:
        key: SHA-256 of the client's key.
        digest: SHA-256 of the body.
        accepted_at: seconds since 1970.
        crashes: how often the process died while the run worked.
        status: how the run has ended; ``None`` while it has not.
        error: why it failed as a whole.
    """

    key: str
    digest: str
    accepted_at: float
    body: Mapping[str, Any]
    crashes: int = 0
    status: str | None = None
    error: str | None = None

    @classmethod
    def read(cls, folder: Folder) -> _Request | None:
        """The request in a run's folder; ``None`` for a run that was not started over HTTP, or a damaged file."""
        known = json_object(folder.read(REQUEST_FILE))
        try:
            return cls(**known)
        except TypeError:
            if known:
                log.warning("%s is damaged, or from another version of gpo", folder.path(REQUEST_FILE))
            return None


@dataclass(slots=True)
class _Run:
    """A run that was accepted.

    Attributes:
        request: without the body, which may be large.
        is_working: whether it has its turn.
        task: carries it out; ``None`` once it has ended.
        document: its status, once that does not change any more.
    """

    id: str
    folder: Folder
    request: _Request
    reader: RunReader
    is_working: bool = False
    task: asyncio.Task[None] | None = None
    document: Document | None = None

    @property
    def status(self) -> str:
        """As in ``serve.http_schemas.RunReply``."""
        return self.request.status or ("running" if self.is_working else "pending")

    def end(self) -> None:
        """Forget the task, which has ended."""
        self.is_working, self.task = False, None

    def read(self) -> StoredRun:
        """What is in the folder.

        Raises:
            ConfigError: no run has begun there.
        """
        for _ in range(_READINGS):
            with suppress(ConfigError):  # a file that is being replaced was listed, and is gone
                return self.reader.read()
        return self.reader.read()


class RunService:
    """Carries out runs; see ``serve.runs.Runs``.

    ``open`` takes the folder of runs and resumes the runs there; every other method does so, too, if it is called
    first. All methods belong to one event loop.
    """

    def __init__(self, settings: Settings) -> None:
        import gpo.models.client  # noqa: F401  # now rather than during the first call

        self._settings = settings
        self._runs: dict[str, _Run] = {}
        self._leases = Leases()
        self._turns = asyncio.Semaphore(settings.max_runs)
        self._opening, self._submitting = asyncio.Lock(), asyncio.Lock()
        self._saving = threading.Lock()
        self._is_open = self._is_closing = False

    # -- the process --------------------------------------------------------------------------------------------------

    async def open(self) -> int:
        """Take the folder, and resume its runs that have not ended; returns how many work or wait.

        Raises:
            ConfigError: another service works there, or the folder cannot be used.
        """
        async with self._opening:
            if not self._is_open and not self._is_closing:
                for run in await asyncio.to_thread(self._found):
                    self._runs[run.id] = run
                    if run.request.status is None:
                        self._begin(run)
                self._is_open = True
        return sum(run.task is not None for run in self._runs.values())

    async def close(self) -> None:
        """Stop all runs; the service resumes them when it starts again."""
        self._is_closing = True
        working = {run.id: run.task for run in self._runs.values() if run.task is not None}
        for task in working.values():
            task.cancel()
        if working:
            await asyncio.wait(working.values(), timeout=_STOP_S)
        for run_id in working:
            await asyncio.to_thread(self._save, self._runs[run_id], crashes=0)
        await asyncio.to_thread(self._leases.release)

    def _found(self) -> list[_Run]:
        """The runs in the folder, in the order of their requests."""
        folder = Folder(str(self._settings.folder))
        try:
            take_lease(self._leases, folder)
            names = folder.names()
        except ConfigError as error:
            raise ConfigError("--runs-dir", error.problem, "end that service, or name another folder") from None
        except OSError as error:
            problem = f"{folder.url!r} cannot be read ({error})"
            raise ConfigError("--runs-dir", problem, "name another folder") from None
        found = []
        for name in names:
            try:
                request = _Request.read(folder / name)
            except OSError:  # not a folder
                continue
            if request is None:
                continue
            run = self._run(name, request)
            if request.status is None and stop_requested([run.folder]):
                self._save(run, status="interrupted")
            elif request.status is None and request.crashes >= _MAX_CRASHES:
                problem = f"the service died {request.crashes} times while this run worked, which may be the cause"
                self._save(run, status="failed", error=problem)
            found.append(run)
        return sorted(found, key=lambda run: run.request.accepted_at)

    def _run(self, run_id: str, request: _Request) -> _Run:
        folder = Folder(str(self._settings.folder / run_id))
        request.body = {}
        return _Run(run_id, folder, request, RunReader(folder))

    # -- requests -----------------------------------------------------------------------------------------------------

    async def submit(self, body: Mapping[str, Any], key: str) -> Document:
        """Accept a run; see ``serve.runs.Runs``."""
        await self.open()
        try:
            content = json.dumps(body, sort_keys=True, allow_nan=False).encode()
        except (TypeError, ValueError):
            raise RefusedRun("the body holds values that JSON has not") from None
        request = _Request(_digest(key.encode(errors="replace")), _digest(content), time.time(), body)
        async with self._submitting:
            run = next((run for run in self._runs.values() if run.request.key == request.key), None)
            if run is None:
                waiting = [run for run in self._runs.values() if run.task is not None and not run.is_working]
                if len(waiting) >= _MAX_WAITING:
                    raise TooManyRuns(f"{_MAX_WAITING} runs wait already")
                run = await asyncio.to_thread(self._accepted, request)
                self._runs[run.id] = run
                self._begin(run)
            elif run.request.digest != request.digest:
                raise RefusedRun(f"the key belongs to run {run.id}, which has another body; choose a new key")
        return await self.status(run.id)

    async def listed(self) -> list[Document]:
        """All runs; see ``serve.runs.Runs``."""
        await self.open()
        runs = sorted(self._runs.values(), key=lambda run: run.request.accepted_at, reverse=True)
        return [{**(await self._document(run)), "trajectories": []} for run in runs]

    async def status(self, run_id: str) -> Document:
        """The status of a run; see ``serve.runs.Runs``."""
        return await self._document(await self._known(run_id))

    async def result(self, run_id: str) -> Document:
        """The best prompts so far; see ``serve.runs.Runs``."""
        run = await self._known(run_id)
        try:
            stored = await asyncio.to_thread(run.read)
        except ConfigError:  # nothing is in the folder yet
            raise NoResult(run_id) from None
        best = best_prompts(stored.record)
        if not best:
            raise NoResult(run_id)
        return {"id": run.id, "status": run.status, "best": best, "summary": stored.document()}

    async def stop(self, run_id: str) -> Document:
        """Stop a run for good; see ``serve.runs.Runs``."""
        run = await self._known(run_id)
        if (task := run.task) is not None:
            # First, so that it is not resumed if the service ends now.
            await asyncio.to_thread(self._save, run, status="interrupted")
            task.cancel()
            await asyncio.wait([task], timeout=_STOP_S)
        return await self._document(run)

    async def _known(self, run_id: str) -> _Run:
        await self.open()
        try:
            return self._runs[run_id]
        except KeyError:
            raise UnknownRun(run_id) from None

    async def _document(self, run: _Run) -> Document:
        if run.document is not None:
            return run.document
        has_ended = run.task is None
        document = await asyncio.to_thread(_document, run)
        if has_ended:
            run.document = document
        return document

    # -- the work -----------------------------------------------------------------------------------------------------

    def _accepted(self, request: _Request) -> _Run:
        """Check a request and save it."""
        run_id = self._new_id(request.body)
        folder = Folder(str(self._settings.folder / run_id))
        try:
            build_tasks(self._configuration(run_id, request.body))
            folder.write(REQUEST_FILE, _content(request))
        except BaseException as error:
            shutil.rmtree(self._settings.folder / run_id, ignore_errors=True)
            if isinstance(error, ConfigError):
                raise RefusedRun(one_line(str(error), _SHOWN)) from None
            raise
        return self._run(run_id, request)

    def _new_id(self, body: Mapping[str, Any]) -> str:
        section = body.get("run")
        name = section.get("name") if isinstance(section, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            name = "run"  # the check of the configuration reports a name that cannot be used
        while (run_id := new_run_id(name)) in self._runs:
            continue
        return run_id

    def _configuration(self, run_id: str, body: Mapping[str, Any]) -> RunConfig:
        """The checked configuration; examples in the request become files in the run's folder."""
        path = self._settings.folder / run_id
        posted = read_posted(body, self._settings.terms, path)
        Arguments({}, rows=posted.rows).save_rows(Folder(str(path)), is_new=True)
        return posted.config

    def _begin(self, run: _Run) -> None:
        if not self._is_closing:
            run.task = asyncio.create_task(self._carry_out(run))
            run.task.add_done_callback(lambda _: run.end())

    async def _carry_out(self, run: _Run) -> None:
        """Wait for a turn and carry a run out, or continue it; an end is saved."""
        status, error = "failed", None
        async with self._turns:
            run.is_working = True
            # Taken back when the service ends in order.
            await asyncio.to_thread(self._save, run, crashes=run.request.crashes + 1)
            try:
                status = await self._executed(run)
            except GPOError as failure:
                error = one_line(str(failure), _SHOWN)
                log.warning("run %s failed: %s", run.id, error)
            except Exception:
                error = "an internal error; see the service's log"
                log.exception("run %s failed", run.id)
        await asyncio.to_thread(self._save, run, status=status, error=error)

    async def _executed(self, run: _Run) -> str:
        """Carry a run out to its end; returns its status then."""
        request = await asyncio.to_thread(_Request.read, run.folder)
        if request is None:
            raise ConfigError(REQUEST_FILE, f"{run.folder.path(REQUEST_FILE)!r} is damaged", "restore it")
        config = await asyncio.to_thread(self._configuration, run.id, request.body)
        await run_in_this_process(
            config,
            RunFolder(run.folder),
            run.id,
            SilentView(),
            limiter=self._settings.limiter,
            urls=self._settings.urls,
            checks_again=False,
        )
        # A stop file makes it "interrupted": such a run is not resumed.
        return str(json_object(await asyncio.to_thread(run.folder.read, "summary.json")).get("status"))

    def _save(self, run: _Run, **changes: Any) -> None:
        """Change ``request.json``."""
        with self._saving:
            for name, value in changes.items():
                setattr(run.request, name, value)
            try:
                stored = _Request.read(run.folder)
                if stored is not None:
                    run.folder.write(REQUEST_FILE, _content(replace(run.request, body=stored.body)))
            except OSError as error:  # a run whose end is not saved is resumed, and ends at once
                log.warning("%s cannot be written: %s", run.folder.path(REQUEST_FILE), error)


def _content(request: _Request) -> bytes:
    return (json.dumps(asdict(request), indent=1) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _document(run: _Run) -> Document:
    """The status of a run, from its folder; see ``serve.http_schemas.RunReply``."""
    # First: the end of a run must not be said of a folder that was read before it.
    status, request = run.status, run.request
    known: Mapping[str, Any] = {}
    with suppress(ConfigError):  # nothing is in the folder yet
        known = status_document(run_status(run.read(), time.time()))
    return {
        "id": run.id,
        "status": status,
        "accepted_at": datetime.fromtimestamp(request.accepted_at, UTC).isoformat(timespec="milliseconds"),
        "steps": known.get("steps", 0),
        "of_steps": known.get("of_steps"),
        "best": known.get("best", {}),
        "spent": known.get("spent", asdict(Spent())),
        "wall_s": known.get("wall_s", 0.0),
        "ended_by": known.get("ended_by"),
        "error": request.error,
        "trajectories": [{name: row[name] for name in _TRAJECTORY} for row in known.get("trajectories", ())],
    }
