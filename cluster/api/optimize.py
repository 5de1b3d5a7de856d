"""``gpo.optimize``: a run in this process, from Python."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import copy_context
from functools import cache, wraps
from math import inf
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from actors.folder import Folder
from cluster.api.keywords import Arguments, named_by_arguments
from cluster.api.progress import progress_view
from cluster.api.run import Run, folder_at, run_id_for
from cluster.config import RunConfig
from cluster.display.progress import View
from cluster.runs.opening import Opening
from cluster.runs.run_folder import RunFolder, new_run_id
from cluster.session.in_process import local_services, require_no_metrics
from cluster.session.interrupts import StopRequested
from cluster.session.models import EmbeddedUrls, RefusedParameters
from cluster.session.preflight import check_models
from gpo.data.task import Task
from gpo.errors import GPOError
from gpo.events import OnEvent
from gpo.limits.limiter import Limiter
from gpo.runtime.concurrency import in_threads
from gpo.user_code.functions import passed_functions

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_POLLED_EVERY_S = 0.2
_ENDS_WITHIN_S = 3.0
_STARTING = threading.Lock()
_HOW_TO_CONTINUE = "the same call with that run_dir continues"


async def optimize_async(
    prompt: str | Sequence[str] | Mapping[str, Any] | None = None,
    *,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    data: Any = None,
    split: Sequence[float] | Mapping[str, float] | None = None,
    fields: Mapping[str, str] | None = None,
    metric: str | Mapping[str, Any] | Callable[..., Any] | None = None,
    task_model: Any = None,
    optimizer_model: Any = None,
    judge_model: Any = None,
    goal: str | None = None,
    must_keep: Sequence[str] | None = None,
    max_words: int | None = None,
    steps: int | None = None,
    budget: Mapping[str, float] | None = None,
    stop: Mapping[str, float] | None = None,
    seed: int | Sequence[int] = 0,
    preset: str | None = None,
    name: str = "task",
    run_dir: str | Path | None = None,
    progress: bool = True,
    on_event: OnEvent | None = None,
    **options: Any,
) -> Run:
    """Optimize a prompt in this process, without Ray, and return the run with its results.

    The run's folder is that of ``gpo run``. The same call with the same ``run_dir`` continues a run that was
    interrupted, and returns the results of one that is complete. ``gpo stop RUN_DIR`` ends it from outside.

    Args:
        prompt: the initial prompt, or a template with columns of the data, such as ``{{ ticket }}``; a list of prompts
            to try first; or ``{"system": …, "user": …}``. Default: prompts that the optimizer model writes from
            ``goal``.
        train: examples that the optimizer model sees, a few at a time: a list of dictionaries, a data frame, or the
            path of a ``.jsonl``, ``.csv`` or ``.tsv`` file.
        val: examples that prompts are scored on; they decide the search.
        test: examples that only the initial and the best prompt are scored on.
        data: in place of the three, all examples, to be divided; or a section as in YAML, such as ``{"benchmark": …}``.
        split: shares or numbers of examples for train, val and test. Default: 0.2, 0.4, 0.4.
        fields: columns, such as ``{"input": "text", "target": "label"}``. Default: columns of these and similar names.
        metric: how an answer is judged: a kind such as ``"label"``, ``"number"``, ``"choice"``, ``"text"``; a section
            as in YAML, such as ``{"kind": "judge", "rubric": …}``; or a function of ``(answer, example)`` that returns
            a number from 0 to 1, or a pair of that and a text that says why. Default: inferred from the targets.
        task_model: the model that answers: its name, a ``gpo.Endpoint``, ``"embedded"`` for the small model that needs
            no endpoint, or a function ``async (messages, **sampling) -> str``.
        optimizer_model: the model that writes prompts. Default: ``task_model``.
        judge_model: the model that judges answers, for kind ``judge``. Default: the optimizer model.
        goal: what the task is, in a sentence or two.
        must_keep: texts that every prompt must contain.
        max_words: most words of a prompt.
        steps: steps of the search. Default: 12.
        budget: most ``calls``, ``tokens``, ``usd`` or ``wall_s`` (seconds). Answered calls of all models count, except
            cached ones; one call of a function counts once. When it is used up, the run ends, and its results so far
            are returned; the same call with a larger budget continues it.
        stop: ends early at a ``target`` score, or after ``patience`` steps without improvement.
        seed: determines all random choices; several seeds are several searches.
        preset: ``efficient`` (default) or ``paper``.
        name: of the task, in the folder and the report.
        run_dir: folder of the run, or a URL such as ``s3://BUCKET/PATH``. Default: a new folder in ``runs``.
        progress: show the progress, in a terminal, a notebook or a log.
        on_event: called with a ``gpo.CandidateScored``, ``StepTaken`` or ``RunEnded`` when that happens.
        options: all other options of a task and all other sections as in YAML, such as ``forbid``, ``language``,
            ``shots``, ``position``, ``optimizer={"candidates": 4}``, ``evaluation``, ``cache``, ``tracking``.

    Raises:
        ConfigError: an argument, the data or a model cannot be used; raised before much is paid for.
        GPOError: every search of the run failed; finished work is saved. If only some failed, the run is returned, and
            ``run.errors`` says why.
        KeyboardInterrupt, CancelledError: it was interrupted; finished work is saved, and ``gpo.Run.open`` reads it.
    """
    values = dict(locals())  # all arguments, and nothing else yet
    arguments = Arguments({name: values[name] for name in values.keys() - {"progress", "on_event", "run_dir"}})
    with named_by_arguments():
        folder, run_id = _folder(run_dir, name)
        config = arguments.configuration(folder)
        require_no_metrics(config)
        with passed_functions(arguments.functions), progress_view(progress) as view:
            run_folder = RunFolder(folder)
            arguments.save_rows(folder, is_new=not run_folder.holds_run)
            try:
                await run_in_this_process(config, run_folder, run_id, view, on_event)
            except asyncio.CancelledError:
                if run_folder.holds_run:
                    where = folder.path("").rstrip("/")
                    log.warning("interrupted; finished work is saved in %s; %s", where, _HOW_TO_CONTINUE)
                raise
    run = Run.open(folder.url)
    for warning in run.warnings:
        log.warning("%s", warning)
    if run.status == "failed" and len(run.errors) == len(run.summary["trajectories"]):
        raise GPOError(f"the run in {run.folder} failed: {next(iter(run.errors.values()))}")
    return run


async def run_in_this_process(
    config: RunConfig,
    run_folder: RunFolder,
    run_id: str,
    view: View,
    on_event: OnEvent | None = None,
    *,
    limiter: Limiter | None = None,
    urls: EmbeddedUrls | None = None,
    checks_again: bool = True,
) -> None:
    """Start a run here, or continue the one in the folder, to its end.

    Args:
        limiter: grants slots and permits; ``None`` is one for this run alone.
        urls: addresses of the embedded models, if others serve them.
        checks_again: whether the models of a run that continues are checked, which costs a few calls.

    Raises:
        ConfigError, GPOError: as for ``cluster.runs.run.Run.execute``.
    """
    opening = await asyncio.to_thread(Opening, config, run_folder, log.info)
    config, tasks = opening.config, opening.tasks
    refused = await checked_models(config, tasks, view, limiter) if opening.is_new else {}
    async with in_threads(opening.opened(run_id)) as opened:
        if opened.record.is_complete:
            await asyncio.to_thread(opened.loop(on_event).conclude)
            return
        if checks_again and opened.needs_check:
            refused = await checked_models(config, tasks, view, limiter)
        name = f"gpo-{opened.record.run_id}"
        services = await local_services(
            config, tasks, view, budget_name=name, refused=refused, limiter=limiter, urls=urls
        )
        try:
            await opened.loop(on_event).execute_here(services, view)
        except StopRequested:
            where = run_folder.folder.path("").rstrip("/")
            log.warning("stopped; finished work is saved in %s; %s", where, _HOW_TO_CONTINUE)


async def checked_models(
    config: RunConfig, tasks: Sequence[Task], view: View, limiter: Limiter | None = None
) -> RefusedParameters:
    """Call every model once, and log what may go wrong later; the parameters that endpoints refuse.

    Args:
        limiter: grants slots and permits; ``None`` is one for these calls alone.

    Raises:
        ConfigError: a model cannot be used.
    """
    view.status("Checking the models")
    checked = await check_models(config, tasks, say=log.warning, limiter=limiter)
    for warning in checked.warnings:
        log.warning("%s", warning)
    return checked.refused


def _folder(run_dir: str | Path | None, name: str) -> tuple[Folder, str]:
    """The folder of the run, and the ID that a new run gets."""
    if run_dir is None:
        run_id = new_run_id(name)
        return Folder.at(f"runs/{run_id}"), run_id
    folder = folder_at(run_dir)
    return folder, run_id_for(folder) or new_run_id(name)


def _blocking(work: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, _T]:
    """A function that runs the coroutine in another thread, so that it works inside a running event loop, too."""

    @wraps(work)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with _STARTING:
            loop, thread = _background_loop(os.getpid())
        outcome = Future[_T]()
        with suppress(RuntimeError):  # no loop runs in this thread
            if asyncio.get_running_loop() is loop:
                raise GPOError("gpo.optimize was called by a function of a run; call it after that run has ended")
        tasks: list[asyncio.Task[None]] = []

        async def main() -> None:
            try:
                outcome.set_result(await work(*args, **kwargs))
            except BaseException as error:
                outcome.set_exception(error)

        def begin() -> None:
            task = loop.create_task(main(), context=context)
            task.add_done_callback(lambda _: end())
            tasks.append(task)

        def end() -> None:
            if not outcome.done():  # it was cancelled before its first step
                outcome.set_exception(asyncio.CancelledError())

        def cancel() -> None:
            for task in tasks:
                task.cancel()
            if not tasks:  # interrupted before it could begin
                end()

        context = copy_context()
        try:
            loop.call_soon_threadsafe(begin)
            _wait(outcome, thread)
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(cancel)
            with suppress(GPOError):
                if not _wait(outcome, thread, _ENDS_WITHIN_S):
                    log.warning("the run is still ending, which a function of yours may delay; Ctrl-C ends it at once")
                    _wait(outcome, thread)
            raise
        try:
            return outcome.result()
        except GPOError as error:
            raise error.with_traceback(None) from None  # where it was raised says nothing about the caller's mistake

    return run


def _wait(outcome: Future[Any], thread: threading.Thread, within_s: float = inf) -> bool:
    """Wait until a coroutine in the event loop of another thread has ended; return whether it has.

    Args:
        thread: runs the event loop.
        within_s: seconds to wait at most.

    Raises:
        GPOError: the event loop has ended, and so the coroutine never will.
    """
    end = time.monotonic() + within_s
    while not wait([outcome], min(_POLLED_EVERY_S, max(0.0, end - time.monotonic()))).done:
        if not thread.is_alive():
            _background_loop.cache_clear()
            raise GPOError("a function of yours ended the event loop, such as by raising KeyboardInterrupt")
        if time.monotonic() >= end:
            return False
    return True


@cache
def _background_loop(pid: int) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """The event loop of all calls in this process, since a user's client may be used in several of them; its thread.

    Args:
        pid: of this process: a forked one has no thread that runs the loop of its parent.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gpo.optimize", daemon=True)
    thread.start()

    async def cancel_all() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    @atexit.register
    def end() -> None:
        if os.getpid() == pid and thread.is_alive():
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(cancel_all(), loop).result(_ENDS_WITHIN_S)

    return loop, thread


optimize = _blocking(optimize_async)
optimize.__name__ = optimize.__qualname__ = "optimize"
