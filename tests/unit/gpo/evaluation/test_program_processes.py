"""Programs in child processes: code that blocks, leaks, forks or exits costs its own example at most."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.cache.sqlite import SqliteStore
from gpo.data.example import Example
from gpo.errors import BudgetExhausted, EvaluationError
from gpo.evaluation.program import Program, ProgramSpec
from gpo.evaluation.program_calls import OfferedModel, Response
from gpo.limits.gate import Gate
from gpo.limits.limiter import LocalLimiter
from gpo.limits.messages import Budget, Pool, Spent
from gpo.models.cached import CachedModel
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.retrying import RetryPolicy
from gpo.prompt import Prompt
from gpo.user_code.functions import FunctionReference

GOOD = (
    "Read carefully: classify the customer ticket exactly. Answer with a single word only, one lowercase category "
    "label, the best topic of billing, technical, shipping, account. Decide by department, reason, support, nothing."
)
PROGRAM = """
import json, os, signal, subprocess, sys, threading, time
import gpo

leak = []


def ask(client, content):
    reply = client.chat.completions.create(model="task", messages=[{"role": "user", "content": content}])
    return reply.choices[0].message.content


def answer(prompts, example, client):
    does = example["does"]
    if does == "hangs":
        child = subprocess.Popen(["sleep", "300"])
        with open(os.environ["PID_FILE"], "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        while True:
            pass
    if does == "threads":  # which have no context that names the example
        replies = []
        content = prompts["prompt"] + "\\n" + example["text"]
        plain = type(client)(max_retries=0)  # of the environment, as frameworks make it
        thread = threading.Thread(target=lambda: replies.append(ask(plain, content)))
        thread.start()
        thread.join()
        return replies[0]
    found = ask(client, prompts["prompt"] + "\\n" + example["text"])
    match does:
        case "answers":
            return gpo.Answer(found, f"process {os.getpid()}")
        case "leaks":
            leak.append(b"x" * 150_000_000)
        case "grows":
            leak.append(bytearray(10_000_000_000))
        case "exits":
            os._exit(3)
        case "exits in Python":
            sys.exit("enough")
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "forks and exits":
            if os.fork() == 0:
                time.sleep(300)
            os._exit(4)
        case "disturbs":
            os.write(int(sys.argv[1]), b"x" * 100)
        case "forks":
            if os.fork() == 0:
                return "child"
        case "prints":
            print("x" * 1_000_000)
            sys.stderr.write("y" * 1_000_000)
        case "returns nothing":
            return None
        case "no JSON":
            json.loads(found)
        case "gives up":
            raise gpo.AnswerError("[prompt] no query")
        case "has a bug":
            raise OSError("a bug")
        case "names a prompt":
            return prompts["plan"]
    return found


async def answer_async(prompts, example, client):
    reply = await client.chat.completions.create(model="task", messages=[{"role": "user", "content": example["text"]}])
    time.sleep(0.05)  # blocks
    return reply.choices[0].message.content
"""


def model(base_url: str, gate: Gate | None = None) -> Any:
    return openai_model(Endpoint(base_url, "task-model"), gate, RetryPolicy(2, patience_s=0.1, max_backoff_s=0.01))


@pytest.fixture
def made(endpoint: SimulatedEndpoint, tmp_path: Path) -> Any:
    (tmp_path / "own_program.py").write_text(PROGRAM)

    def program(name: str = "answer", models: Any = None, **settings: Any) -> Program:
        settings = {"processes": 1, "max_seconds": 20.0, **settings}
        spec = ProgramSpec(FunctionReference("own_program", name, (str(tmp_path),)), **settings)
        defaults = {"temperature": 0, "max_tokens": 64}
        return Program(spec, {"task-model": OfferedModel(models or model(endpoint.base_url), defaults)})

    return program


async def respond(program: Program, does: str, number: int = 0) -> Response:
    text = f"Hello {number}, the invoice is wrong, so what should I do now?"
    return await program.respond(Prompt(GOOD), Example(text, ("billing",), row={"text": text, "does": does}))


def has_ended(pid: int) -> bool:
    """Whether a process has ended, or will have at once; nobody may wait for it in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def in_flight(program: Program) -> int:
    gate: Gate = program.models["task-model"].model.gate  # type: ignore[attr-defined]
    return gate._state._num_in_flight


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # the simplest
        await asyncio.sleep(0.01)


def processes_of(program: Program) -> list[int]:
    return [worker._process.pid for worker, _ in program._in_work.workers._idle]


def test_examples_share_a_process_which_ends_with_the_event_loop_and_their_calls_pass_the_cache(
    made: Any, endpoint: SimulatedEndpoint, tmp_path: Path
) -> None:
    cached = CachedModel(model(endpoint.base_url), SqliteStore(tmp_path / "c.sqlite"), {"model": "task-model"})
    program = made(models=cached)

    async def main() -> int:
        first, second, again = [await respond(program, "answers", number) for number in (1, 2, 1)]
        (pid,) = processes_of(program)
        assert [one.text for one in (first, second)] == [f"[prompt] billing\nThe answer: billing\nprocess {pid}"] * 2
        assert pid != os.getpid()
        assert (first.usage.requests, again.usage.requests, again.usage.cached) == (1, 0, 1)
        assert [call.part for call in again.calls] == ["prompt"]
        threaded = await respond(program, "threads", 3)
        assert (threaded.answer, threaded.usage.requests, len(threaded.calls)) == ("billing", 1, 1)
        assert len(endpoint.requests) == 3
        os.kill(pid, signal.SIGSTOP)  # it can do nothing by itself
        return pid

    assert has_ended(asyncio.run(main()))


async def test_at_most_so_many_examples_at_once_and_async_functions_may_block(
    made: Any, endpoint: SimulatedEndpoint
) -> None:
    program = made("answer_async", processes=2)
    found = await asyncio.gather(*(respond(program, "", number) for number in range(8)))
    assert Counter(type(one.answer) for one in found) == {str: 8}
    assert len(processes_of(program)) == 2
    assert max(record.in_flight for record in endpoint.requests) <= 2


async def test_a_program_that_hangs_or_is_cancelled_is_ended_with_all_that_it_has_started(
    made: Any, endpoint: SimulatedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pids"))
    program = made(max_seconds=2.0)
    found = await respond(program, "hangs")
    assert (found.answer, found.problem) == (None, "the program took longer than program.max_seconds (2 s)")
    assert processes_of(program) == []
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    async with asyncio.timeout(20):
        await until(lambda: all(map(has_ended, pids)))

    program = made()
    await respond(program, "answers", 2)
    (pid,) = processes_of(program)
    endpoint.behaviour = Behaviour(latency_s=30)
    task = asyncio.create_task(respond(program, "answers", 3))
    async with asyncio.timeout(20):
        await until(lambda: in_flight(program) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert has_ended(pid)
        await until(lambda: in_flight(program) == 0)


async def test_a_leak_costs_no_example_but_one_that_needs_too_much_stays_unscored(made: Any) -> None:
    program = made(max_memory_mb=300)
    answers = [(await respond(program, "leaks", number)).answer for number in range(2)]
    assert answers == ["billing"] * 2
    found = await respond(program, "grows", 9)
    assert found.problem == "the program needs more memory than program.max_memory_mb (300 MB)"
    assert found.usage.requests == 2  # what both attempts cost


async def test_an_end_of_the_process_leaves_the_example_unscored(made: Any) -> None:
    program = made()
    for number, (does, problem) in enumerate(
        (
            ("exits", "the program ended its process with exit code 3"),
            ("forks and exits", "the program ended its process with exit code 4"),  # its child keeps the connection
            ("crashes", "the program's process was ended by SIGSEGV"),
            ("disturbs", "the program's process sent something else than an answer"),
        )
    ):
        found = await respond(program, does, number)
        assert (found.answer, found.problem, found.usage.requests) == (None, problem, 1)
        assert processes_of(program) == []


async def test_other_faults_have_the_rules_of_programs_in_this_process(
    made: Any, endpoint: SimulatedEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    limiter = LocalLimiter()
    await limiter.open_budget("run", Budget(calls=8), Spent())
    pool = Pool(endpoint.base_url, "task-model", 4, 4, budget_name="run", has_budget=True, has_call_budget=True)
    program = made(models=model(endpoint.base_url, Gate(limiter, pool)))
    assert (await respond(program, "forks")).answer == "billing"
    assert (await respond(program, "prints")).answer == "billing"
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("x") >= 1_000_000 <= printed.err.count("y")
    assert (await respond(program, "no JSON")).fault.startswith("JSONDecodeError: Expecting value")
    assert (await respond(program, "gives up")).fault == "AnswerError: [prompt] no query"
    for does, message in (
        ("returns nothing", "own_program:answer returned a NoneType, not a text or a gpo.Answer"),
        ("exits in Python", "own_program:answer failed: SystemExit: enough"),
        ("has a bug", r"own_program:answer failed: OSError: a bug \(.*own_program.py, line \d+\)"),
        ("names a prompt", "there is no prompt 'plan'; the prompts are: prompt"),
    ):
        with pytest.raises(EvaluationError, match=message):
            await respond(program, does)
    with pytest.raises(BudgetExhausted):
        await respond(program, "answers")
    assert len(endpoint.requests) == 8
    program.models["task-model"] = OfferedModel(model("http://127.0.0.1:9/v1"), {})
    found = await respond(program, "returns nothing")
    assert "task-model at http://127.0.0.1:9/v1" in found.problem
    assert len(processes_of(program)) == 1  # none of this cost the process


async def test_a_program_that_cannot_be_imported_is_a_bug(made: Any) -> None:
    with pytest.raises(EvaluationError, match="'nothing' is not defined in the module 'own_program'"):
        await respond(made("nothing"), "answers")
