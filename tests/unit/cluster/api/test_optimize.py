"""``gpo.optimize`` on the simulated endpoint, in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import gpo
from actors.folder import Folder
from benchmarks.simulated.service import Behaviour
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.api import optimize
from cluster.runs.stop_file import request_stop
from gpo.errors import BudgetExhausted
from tests.configs import TRIAGE
from tests.paths import ROOT

FILES = {split: TRIAGE / f"{split}.jsonl" for split in ("train", "val", "test")}
ROWS = {split: [json.loads(line) for line in path.read_text().splitlines()] for split, path in FILES.items()}
PROMPT = "Classify the support ticket into one of: billing, technical, shipping, account."


def arguments(endpoint: SimulatedEndpoint, folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        **ROWS,
        "metric": "exact",
        "task_model": gpo.Endpoint(endpoint.base_url, model="task-model", sampling={"max_tokens": 64}),
        "optimizer_model": gpo.Endpoint(endpoint.base_url, model="opt-model", sampling={"max_tokens": 512}),
        "steps": 2,
        "optimizer": {"candidates": 3},
        "evaluation": {"val_size": 20, "test_size": 20},
        "position": "question_begin",
        "cache": {"path": str(folder / "completions.sqlite")},
        "run_dir": folder / "run",
        "progress": False,
        **changes,
    }


def steps(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "llm"} for row in rows]


def test_a_run_returns_its_results_and_leaves_the_folder_of_gpo_run(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    events: list[Any] = []
    run = gpo.optimize(**arguments(endpoint, tmp_path, on_event=events.append))
    assert (run.status, run.tasks, run.errors) == ("completed", ("task",), {})
    assert run.best.test is not None
    assert run.best.num_val == run.best.num_test == 20
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["trajectories"][0]["best"]["prompt"] == run.best.prompt
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"config.yaml", "report.html", "best_prompts.json"}
    scored = [event for event in events if isinstance(event, gpo.CandidateScored)]
    assert [(one.step, one.prompt) for one in scored] == [(one.step, one.prompt) for one in run.candidates()]
    assert [event.step for event in events if isinstance(event, gpo.StepTaken)] == [1, 2]
    assert events[-1] == gpo.RunEnded(run.id, "completed", run.folder)
    again = gpo.Run.open(tmp_path / "run")
    assert (again.best, again.candidates()) == (run.best, run.candidates())
    assert Path(run.report(tmp_path / "r.html")).read_text() == Path(run.report()).read_text()
    assert "task" in str(run)
    assert run.best.prompt.replace("<", "&lt;") in run._repr_html_()


def test_the_same_call_continues_the_run_and_repeats_nothing(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    given = arguments(endpoint, tmp_path, cache={"kind": "none"})
    with pytest.raises(RuntimeError, match="stop here"):  # a driver that dies after the first step
        _optimize_until_the_first_step(given)
    first = gpo.Run.open(tmp_path / "run")
    assert first.status == "interrupted"
    run = gpo.optimize(**given)
    whole = gpo.optimize(**{**given, "run_dir": tmp_path / "whole"})
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")
    assert (run.best.prompt, run.best.test) == (whole.best.prompt, whole.best.test)
    calls = len(endpoint.requests)
    again = gpo.optimize(**given)
    assert (again.best, again.status) == (run.best, "completed")
    assert len(endpoint.requests) == calls  # a complete run calls no model


def _optimize_until_the_first_step(given: dict[str, Any]) -> None:
    async def work() -> None:
        has_step = asyncio.Event()

        def on_event(event: Any) -> None:
            if isinstance(event, gpo.StepTaken):
                has_step.set()

        running = asyncio.create_task(gpo.optimize_async(**given, on_event=on_event))
        await has_step.wait()
        running.cancel()
        await asyncio.wait([running])
        raise RuntimeError("stop here")

    asyncio.run(work())


def test_other_arguments_for_the_same_folder_are_refused(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    gpo.optimize(**arguments(endpoint, tmp_path, steps=0))
    with pytest.raises(gpo.ConfigError, match=r"^steps: the run in .* has 0, not 1; resume with its own"):
        gpo.optimize(**arguments(endpoint, tmp_path, steps=1))
    with pytest.raises(gpo.ConfigError, match=r"^val: the examples are not those that the run"):
        gpo.optimize(**arguments(endpoint, tmp_path, steps=0, val=ROWS["val"][1:]))
    assert len((tmp_path / "run/data/val.jsonl").read_text().splitlines()) == len(ROWS["val"])


async def test_it_works_inside_a_running_event_loop(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    given = arguments(endpoint, tmp_path, steps=1)
    run = gpo.optimize(**given)  # what a cell of a notebook does
    other = await gpo.optimize_async(**{**given, "run_dir": tmp_path / "other"})
    assert run.best.prompt == other.best.prompt


def test_a_function_is_a_metric_and_a_model(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def ask(messages: Sequence[dict[str, str]], temperature: float | None = None) -> str:
        asked.append({"content": messages[-1]["content"], "temperature": temperature})
        return "billing"

    def metric(answer: str, example: gpo.Example) -> tuple[float, str]:
        return float(answer == example["label"]), f"expected {example.target}"

    run = gpo.optimize(**arguments(endpoint, tmp_path, steps=1, task_model=ask, metric=metric))
    share = sum(row["label"] == "billing" for row in ROWS["val"]) / len(ROWS["val"])
    assert run.candidates()[0].val == pytest.approx(share, abs=0.2)
    assert len(asked) == run.summary["llm"]["task"]["requests"] + 1  # the check
    assert all(one["temperature"] == 0.0 for one in asked)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('a bug')", "failed: ValueError: a bug"),
        ("return 3", "returned a int, not a text"),
        ("return messages[7]", "failed: IndexError"),
    ],
)
def test_a_faulty_function_is_found_before_the_run(
    body: str, message: str, endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    scope: dict[str, Any] = {}
    exec(f"async def ask(messages, **sampling):\n    {body}\n", scope)  # noqa: S102
    with pytest.raises(
        gpo.ConfigError, match=rf"^task_model.function: the first call failed: the function .* {message}"
    ):
        gpo.optimize(**arguments(endpoint, tmp_path, task_model=scope["ask"]))
    assert not (tmp_path / "run/config.yaml").exists()


def test_an_exhausted_budget_returns_what_there_is(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    run = gpo.optimize(**arguments(endpoint, tmp_path, steps=9, budget={"calls": 60}, cache={"kind": "none"}))
    assert run.status == "budget_exhausted"
    assert run.best.val is not None
    assert run.summary["spent"]["calls"] == 60
    assert issubclass(BudgetExhausted, gpo.GPOError)


def test_a_run_whose_time_is_over_calls_no_model_when_it_is_called_again(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    given = arguments(endpoint, tmp_path, budget={"wall_s": 0.001}, cache={"kind": "none"})
    assert gpo.optimize(**given).status == "budget_exhausted"
    calls = len(endpoint.requests)
    assert gpo.optimize(**given).status == "budget_exhausted"
    assert len(endpoint.requests) == calls


def test_a_stop_file_ends_it(endpoint: SimulatedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.session.interrupts._POLLED_EVERY_S", 0.05)

    def on_event(event: Any) -> None:
        if isinstance(event, gpo.StepTaken) and event.step == 1:
            request_stop(Folder.at(str(tmp_path / "run")))

    run = gpo.optimize(**arguments(endpoint, tmp_path, steps=300, on_event=on_event))
    assert run.status == "interrupted"
    assert 1 <= run.summary["trajectories"][0]["steps"] < 300


def test_an_error_in_on_event_is_logged_and_the_run_continues(
    endpoint: SimulatedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def on_event(event: Any) -> None:
        raise ValueError("a bug")

    assert gpo.optimize(**arguments(endpoint, tmp_path, steps=1, on_event=on_event)).status == "completed"
    assert "on_event failed; the run continues" in caplog.text


def test_metrics_for_prometheus_are_refused(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    with pytest.raises(gpo.ConfigError, match=r"^metrics: are counted in runs on Ray only"):
        gpo.optimize(**arguments(endpoint, tmp_path, metrics={"port": 0}))


def test_a_refused_key_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "sk-canary-1234567890")
    with SimulatedEndpoint(Behaviour(api_key="another")) as endpoint:
        model = gpo.Endpoint(endpoint.base_url, model="task-model", api_key_env="CANARY")
        with pytest.raises(gpo.ConfigError) as error:
            gpo.optimize(**arguments(endpoint, tmp_path, task_model=model, optimizer_model=model))
    assert str(error.value).startswith("task_model.api_key_env: ")
    assert "sk-canary" not in str(error.value)


def test_ctrl_c_stops_a_script_and_says_how_to_continue(
    endpoint: SimulatedEndpoint, tmp_path: Path, until: Callable[..., None]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import gpo\n"
        f"model = lambda name: gpo.Endpoint({endpoint.base_url!r}, model=name, max_concurrency=1)\n"
        f"gpo.optimize({PROMPT!r}, data={str(FILES['val'])!r}, metric='exact', task_model=model('task-model'),\n"
        f"    optimizer_model=model('opt-model'), steps=500, run_dir={str(tmp_path / 'run')!r},\n"
        "    cache={'kind': 'none'})\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=_environment()
    )
    until(lambda: (tmp_path / "run/trajectories").exists(), "the initial prompt is scored")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert f"interrupted; finished work is saved in {tmp_path / 'run'}" in errors
    assert gpo.Run.open(tmp_path / "run").status == "interrupted"


INTERRUPTED = """
import asyncio, logging, signal, sys, threading
from cluster.api import optimize
logging.basicConfig(format="%(message)s")
optimize._ENDS_WITHIN_S = {within_s}
is_over = threading.Event()

async def work():
    try:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        {what}
        raise

try:
    optimize._blocking(work)()
except KeyboardInterrupt:
    is_over.set()
    print("interrupted")
"""


@pytest.mark.parametrize("what", ["asyncio.get_running_loop().call_soon(sys.exit); await asyncio.Event().wait()", ""])
def test_an_interrupt_does_not_wait_for_an_event_loop_that_has_ended(what: str) -> None:
    code = INTERRUPTED.format(what=what or "pass", within_s=100.0)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=False, timeout=60
    )
    assert (done.stdout, "still ending" in done.stderr) == ("interrupted\n", False)


def test_an_interrupt_says_that_a_second_one_ends_what_hangs() -> None:
    code = INTERRUPTED.format(what="is_over.wait(300)", within_s=0.5)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
    )
    try:
        assert process.stderr is not None
        assert "Ctrl-C ends it at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("has_begun", [True, False])
def test_an_interrupt_in_the_moment_of_the_beginning_cancels_the_work(
    has_begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, thread = optimize._background_loop(os.getpid())
    happened: list[str] = []

    class Interrupted:
        """The event loop; the first call of it is interrupted."""

        def __init__(self) -> None:
            self.create_task, self.calls = loop.create_task, 0

        def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
            self.calls += 1
            if self.calls > 1 or has_begun:
                loop.call_soon_threadsafe(callback)
            if self.calls == 1:
                raise KeyboardInterrupt

    async def work() -> None:
        happened.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            happened.append("ended")

    interrupted = Interrupted()
    monkeypatch.setattr(optimize, "_background_loop", lambda pid: (interrupted, thread))
    with pytest.raises(KeyboardInterrupt):
        optimize._blocking(work)()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
    assert interrupted.calls == 2
    assert happened in ([], ["begun", "ended"])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_neither_ray_nor_optuna_nor_prometheus_is_loaded() -> None:
    code = "import gpo, sys; gpo.optimize, gpo.Run; print({'ray', 'optuna', 'prometheus_client'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert found.stdout == "set()\n"


def test_unknown_names_of_the_package_are_attribute_errors() -> None:
    assert set(gpo.__all__) <= set(dir(gpo))
    assert all(getattr(gpo, name) for name in gpo.__all__)
    with pytest.raises(AttributeError, match="module 'gpo' has no attribute 'optimise'"):
        _ = gpo.optimise  # type: ignore[attr-defined]


def test_a_metric_whose_text_has_changed_is_refused(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    def judged(answer: str, example: gpo.Example) -> float:
        return float(answer == example.target)

    gpo.optimize(**arguments(endpoint, tmp_path, steps=0, metric=judged))
    before = judged

    def judged(answer: str, example: gpo.Example) -> float:  # type: ignore[no-redef]
        return 0.5 * (answer == example.target)

    with pytest.raises(gpo.ConfigError, match=r"^metric: the function is not the one that the run in .* began"):
        gpo.optimize(**arguments(endpoint, tmp_path, steps=0, metric=judged))
    assert gpo.optimize(**arguments(endpoint, tmp_path, steps=0, metric=before)).status == "completed"


def test_a_client_of_the_user_works_in_one_call_after_the_other(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    async def ask(messages: Sequence[dict[str, str]]) -> str:
        loops.add(asyncio.get_running_loop())
        return "billing"

    for number in range(2):
        gpo.optimize(**arguments(endpoint, tmp_path, steps=0, task_model=ask, run_dir=tmp_path / str(number)))
    assert len(loops) == 1


def test_a_run_whose_searches_all_fail_is_an_error_and_can_be_continued(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    broken = [True]

    async def ask(messages: Sequence[dict[str, str]]) -> str:
        if broken and len(asked) > 30:
            raise ValueError("a bug")
        asked.append(1)
        return "billing"

    asked: list[int] = []
    given = arguments(endpoint, tmp_path, task_model=ask)
    with pytest.raises(gpo.GPOError, match=r"the run in .* failed: EvaluationError: the function .* ValueError: a bug"):
        gpo.optimize(**given)
    assert "ValueError: a bug" in str(gpo.Run.open(tmp_path / "run"))
    broken.clear()
    assert gpo.optimize(**given).status == "completed"


def test_a_function_that_leaves_the_program_or_starts_another_run_ends_only_its_own_run(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    async def leave(messages: Sequence[dict[str, str]]) -> str:
        sys.exit(3)

    with pytest.raises(gpo.ConfigError, match="SystemExit: 3"):
        gpo.optimize(**arguments(endpoint, tmp_path, task_model=leave))

    async def nested(messages: Sequence[dict[str, str]]) -> str:
        return str(gpo.optimize(**arguments(endpoint, tmp_path, steps=0)))

    with pytest.raises(gpo.ConfigError, match="call it after that run has ended"):
        gpo.optimize(**arguments(endpoint, tmp_path, task_model=nested))
    assert gpo.optimize(**arguments(endpoint, tmp_path, steps=0)).status == "completed"


def test_a_model_whose_text_has_changed_is_refused(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    def replying(reply: str) -> Callable[..., Any]:
        async def ask(messages: Sequence[dict[str, str]]) -> str:
            return reply

        return ask

    gpo.optimize(**arguments(endpoint, tmp_path, steps=0, task_model=replying("billing")))
    with pytest.raises(gpo.ConfigError, match=r"^task_model\.function: the function is not the one"):
        gpo.optimize(**arguments(endpoint, tmp_path, steps=0, task_model=replying("account")))


def test_a_function_that_ends_the_event_loop_is_an_error_and_the_next_call_works(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    """In a process of its own, since what was running in the loop is left behind."""
    code = (
        "import gpo\n"
        "async def ask(messages): raise KeyboardInterrupt\n"
        f"model = lambda name: gpo.Endpoint({endpoint.base_url!r}, model=name)\n"
        f"given = dict(data={str(FILES['val'])!r}, metric='exact', optimizer_model=model('opt-model'), steps=0,\n"
        f"    run_dir={str(tmp_path / 'run')!r}, progress=False)\n"
        f"try: gpo.optimize({PROMPT!r}, task_model=ask, **given)\n"
        "except gpo.GPOError as error: print(error)\n"
        f"print(gpo.optimize({PROMPT!r}, task_model=model('task-model'), **given).status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=False, timeout=60
    )
    assert done.stdout.splitlines() == [
        "a function of yours ended the event loop, such as by raising KeyboardInterrupt",
        "completed",
    ]
