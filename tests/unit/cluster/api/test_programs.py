"""Runs with a program, in this process, on the simulated endpoint; the program is that of ``examples/``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import gpo
from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.evaluation.program_processes import Worker
from gpo.models import retrying
from gpo.prompt import parts_of
from tests.commands import gpo_in_this_process
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.conftest import Until

EXAMPLE = ROOT / "examples" / "support_desk"
SECTIONS = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
(TASK,) = SECTIONS["tasks"]


def arguments(endpoint: SimulatedEndpoint, folder: Path, **changes: Any) -> dict[str, Any]:
    model = {"max_concurrency": 8, "check": False}
    return {
        **{split: EXAMPLE / path for split, path in TASK["data"].items()},
        "fields": TASK["fields"],
        "program": {"function": TASK["program"], "folder": str(EXAMPLE)},
        "prompts": TASK["prompts"],
        "metric": "exact",
        "task_model": gpo.Endpoint(endpoint.base_url, model="task-model", sampling={"max_tokens": 64}, **model),
        "optimizer_model": gpo.Endpoint(endpoint.base_url, model="opt-model", sampling={"max_tokens": 512}, **model),
        "steps": 4,
        "optimizer": {"candidates": 4, "direction": {"form": "feedback"}},
        "cache": {"path": str(folder / "completions.sqlite")},
        "run_dir": folder / "run",
        "progress": False,
        **changes,
    }


def steps(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "llm"} for row in rows]


def test_two_prompts_get_better_and_no_call_is_made_twice(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    settings = {"candidates": 6, "direction": {"form": "feedback"}}
    run = gpo.optimize(**arguments(endpoint, tmp_path, steps=8, optimizer=settings, seed=[0, 1]))
    first, best = run.candidates()[0], run.best
    assert first.test is not None
    assert best.test is not None
    assert best.test > first.test + 0.05
    assert list(best.prompts) == ["topic", "desk"]
    assert first.prompts == TASK["prompts"]
    saved = json.loads((tmp_path / "run/best_prompts.json").read_text())["task"]
    assert saved["parts"] == best.prompts == parts_of(best.prompt)
    assert {tuple(row["parts"]) for row in steps(tmp_path / "run")} >= {("topic", "desk"), ("topic",), ("desk",)}
    for row in steps(tmp_path / "run"):  # a step changes one part alone
        for one in row["candidates"]:
            changed = {name for name, text in parts_of(one["prompt"]).items() if text != TASK["prompts"][name]}
            assert changed <= {"topic", "desk"}
    assert "[[topic]]" in (tmp_path / "run/report.html").read_text()
    calls = Counter(record.content for record in endpoint.requests if record.model == "task-model")
    assert calls.most_common(1)[0][1] == 1
    assert len(calls) == run.summary["llm"]["task"]["requests"]
    assert max(record.in_flight for record in endpoint.requests if record.model == "task-model") <= 16


def test_an_agent_with_tools_gets_better(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    (task,) = yaml.safe_load((EXAMPLE / "agent.yaml").read_text())["tasks"]
    program = {"function": task["program"], "folder": str(EXAMPLE)}
    changes = {"program": program, "prompts": None, "prompt": task["prompt"], "seed": 1}
    run = gpo.optimize(**arguments(endpoint, tmp_path, **changes, steps=8, optimizer={"candidates": 6}))
    assert run.best.test is not None
    assert run.best.test > (run.candidates()[0].test or 0) + 0.1
    assert run.best.prompts == {"prompt": run.best.prompt}
    answered = [record for record in endpoint.requests if record.model == "task-model"]
    assert {record.status for record in answered} == {200}
    assert len({record.content for record in answered}) == len(answered)
    assert len(answered) % 2 == 0  # each example: a call of a tool, and the answer


def test_a_single_prompt_has_the_name_that_the_task_gives_it(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    (tmp_path / "named_program.py").write_text(
        "async def answer(prompts, example, client):\n    return prompts['label']\n"
    )
    program = {"function": "named_program:answer", "folder": str(tmp_path)}
    changes = {"program": program, "prompts": {"label": "billing"}, "optimizer": {}}
    run = gpo.optimize(**arguments(endpoint, tmp_path, **changes, steps=0))
    assert run.best.prompts == {"label": "billing"}
    assert [one.prompts for one in gpo.Run.open(tmp_path / "run").candidates()] == [{"label": "billing"}]


def test_the_budget_is_kept_to_the_call(endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    run = gpo.optimize(**arguments(endpoint, tmp_path, budget={"calls": 301}))
    assert run.status == "budget_exhausted"
    assert run.summary["spent"]["calls"] == len(endpoint.requests) == 301


def killed_in_the_second_step(given: dict[str, Any]) -> None:
    """Run in a process of its own, which SIGKILL ends while its child process works on an example."""
    num_steps = num_answers = 0
    answer = Worker.answer

    def on_event(event: object) -> None:
        nonlocal num_steps
        num_steps += isinstance(event, gpo.StepTaken)

    async def counted(self: Worker, *arguments: Any) -> gpo.Answer:
        nonlocal num_answers
        num_answers += num_steps
        if num_answers == 10:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
        return await answer(self, *arguments)

    Worker.answer = counted  # type: ignore[method-assign]
    gpo.optimize(**given, on_event=on_event)


def is_worker_of(command: Path, pid: int | None) -> bool:
    """Whether a file ``/proc/.../cmdline`` is of a child process that runs a program for the process."""
    try:
        words = command.read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    return any(b"program_worker" in word for word in words) and str(pid).encode() in words


def test_a_run_that_was_interrupted_in_a_step_ends_with_the_same_result(
    endpoint: SimulatedEndpoint, tmp_path: Path, until: Until
) -> None:
    rows = {split: [json.loads(row) for row in (EXAMPLE / f"{split}.jsonl").open()][:12] for split in TASK["data"]}
    settings = {"candidates": 2, "direction": {"form": "feedback"}}
    given = arguments(endpoint, tmp_path, **rows, steps=2, optimizer=settings, cache={"kind": "none"})
    whole = gpo.optimize(**given)

    async def cancelled(given: dict[str, Any]) -> None:
        has_step = asyncio.Event()
        on_event = lambda event: has_step.set() if isinstance(event, gpo.StepTaken) else None  # noqa: E731
        running = asyncio.create_task(gpo.optimize_async(**given, on_event=on_event))
        await has_step.wait()
        before = len(endpoint.requests)
        while len(endpoint.requests) < before + 10:  # noqa: ASYNC110  # the endpoint runs in a thread
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    def resumed(given: dict[str, Any]) -> None:
        assert len(steps(given["run_dir"])) == 1
        assert gpo.optimize(**given).best == whole.best
        assert steps(given["run_dir"]) == steps(tmp_path / "run")

    in_threads = {**given, "run_dir": tmp_path / "threads"}
    asyncio.run(cancelled(in_threads))
    assert gpo.Run.open(tmp_path / "threads").status == "interrupted"
    resumed(in_threads)

    program = {**given["program"], "workers": "process", "processes": 1}
    in_processes = {**given, "run_dir": tmp_path / "processes", "program": program}
    killed = get_context("spawn").Process(target=killed_in_the_second_step, args=(in_processes,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    until(
        lambda: not any(is_worker_of(command, killed.pid) for command in Path("/proc").glob("[0-9]*/cmdline")),
        "its child processes have ended",
    )
    resumed(in_processes)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "the program .* returned a NoneType, not a text or a gpo.Answer"),
        ("return prompts['plan']", "there is no prompt 'plan'; the prompts are: topic, desk .*, line 2"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return await client.responses.create(model='task')", "POST /responses: here are POST /chat/completions"),
    ],
)
def test_a_bug_ends_the_run_before_anything_is_paid_for(
    body: str, said: str, endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    (tmp_path / "own_program.py").write_text(f"async def answer(prompts, example, client):\n    {body}\n")
    program = {"function": "own_program:answer", "folder": str(tmp_path)}
    model = gpo.Endpoint(endpoint.base_url, model="task-model")
    with pytest.raises(gpo.ConfigError, match=rf"^program.function: tried on the first example: .*{said}"):
        gpo.optimize(**arguments(endpoint, tmp_path, program=program, task_model=model))
    assert len(endpoint.requests) <= 2  # the checks of the models
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_bug_that_only_some_examples_have_ends_the_run_with_its_place(
    endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    (tmp_path / "half.py").write_text(
        "async def answer(prompts, example, client):\n    return 'billing' if 'invoice' in example['text'] else 1 / 0\n"
    )
    program = {"function": "half:answer", "folder": str(tmp_path)}
    with pytest.raises(
        gpo.GPOError, match=r"the program half:answer failed: ZeroDivisionError: .*half.py, line 2"
    ) as e:
        gpo.optimize(**arguments(endpoint, tmp_path, program=program))
    assert "Traceback" not in str(e.value)


def test_calls_that_fail_for_a_moment_are_repeated_and_can_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "_FIRST_BACKOFF_S", 0.001)  # the waits are random, and no part of this
    with SimulatedEndpoint(Behaviour(error_rate=0.3)) as endpoint:
        rows = {split: [json.loads(row) for row in (EXAMPLE / f"{split}.jsonl").open()][:12] for split in TASK["data"]}
        run = gpo.optimize(**arguments(endpoint, tmp_path, steps=1, record={"calls": True}, **rows))
    statuses = Counter(record.status for record in endpoint.requests if record.model == "task-model")
    assert run.status == "completed"
    assert statuses.keys() == {200, 500}
    assert run.summary["llm"]["task"]["requests"] == statuses[200]
    assert run.summary["llm"]["task"]["retries"] == statuses[500]
    shown = gpo_in_this_process("show", tmp_path / "run", "--example", "val/1", cwd=tmp_path).stdout
    assert re.search(rf"Call 1 \[topic\]: \d+ tokens, .* s\n    user: {re.escape(TASK['prompts']['topic'])}\n", shown)
    assert shown.count("    reply: ") >= 2
