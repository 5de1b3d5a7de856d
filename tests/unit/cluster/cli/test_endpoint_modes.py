"""``gpo evaluate`` at endpoints that behave differently: every mode of the simulated endpoint that needs no Ray."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated.modes import OPTIMIZER_REPLIES
from benchmarks.simulated_endpoint import Behaviour, Mode, SimulatedEndpoint
from cluster.config import load_config
from cluster.session.models import Access, embedder
from gpo.limits.limiter import LocalLimiter
from tests.commands import searched
from tests.configs import CHECKED, merged
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.commands import Finished, RunGpo
    from tests.configs import WriteConfig

WORDS = "the flux capacitor is 88 % full"
KEY = "canary-9e1f44"
CHAT = "/v1/chat/completions"
TWO_ROUNDS = {
    "tasks": [{"answer": {"kind": "label", "labels": ["billing", "technical", "shipping", "account"], "rounds": 2}}]
}
SYSTEM = {"tasks": [{"position": "system"}]}
BODIES: dict[str, Any] = {
    "detail": {"detail": WORDS},
    "a page": f"<html><head><style>b {{}}</style></head><body><b>{WORDS}</b></body></html>",
    "a repeated key": {"error": {"message": f"{WORDS}; your key is {KEY}"}},
}
"""``tests/unit/gpo/models/test_failures.py`` has all forms."""


@dataclass(frozen=True)
class Case:
    """What ``gpo evaluate`` prints and does.

    Attributes:
        code: of the exit.
        words: printed, on any stream.
        calls: most calls that the endpoint gets, the check's included.
        changes: to the small configuration.
        behaviour: of the endpoint, besides its mode.
        unchecked: the exit code, words and most calls without the check, where they differ.
    """

    code: int
    words: tuple[str, ...]
    calls: int
    changes: dict[str, Any] = field(default_factory=dict)
    behaviour: dict[str, Any] = field(default_factory=dict)
    unchecked: tuple[int, tuple[str, ...], int] | None = None


GOOD = ("triage val: ", "8 examples")
ALL = 9
"""One call for each example, and one for the check, that may be answered from the cache."""
CASES: dict[Mode, Case] = {
    Mode.EMPTY: Case(0, ("cut off at max_tokens", "raise models.task.sampling.max_tokens", "8 of 8 answers"), ALL),
    Mode.THINKS_UNSEEN: Case(0, (*GOOD, "8 calls, 400 + 8016 tokens"), 8),
    Mode.EMPTY_FIRST_ROUND: Case(
        0, (*GOOD, "8 of 8 answers to this prompt on val are empty", "is empty; "), 9, TWO_ROUNDS
    ),
    Mode.FAILS_IN_THE_REPLY: Case(0, (*GOOD, "8 calls"), 16),
    Mode.FAILS_WITH_200: Case(
        2,
        ("models.task", "Error loading the model: out of memory"),
        4,
        unchecked=(1, ("Error loading the model: out of memory",), 8),
    ),
    Mode.FIREWALL: Case(
        1,
        ("stayed unscored", "Attention Required! Blocked.", "Warning: the first call"),
        ALL,
        {"tasks": [{"prompt": "Say the forbidden phrase."}]},
    ),
    Mode.NO_CREDIT: Case(2, ("models.task.api_key_env", "HTTP 402: Insufficient Balance", "add credit"), 8),
    Mode.NO_QUOTA: Case(2, ("models.task.api_key_env", "You exceeded your current quota", "add credit"), 8),
    Mode.INVALID_KEY: Case(2, ("models.task.api_key_env", "API key not valid. Pass a valid one.", "set a key"), 8),
    Mode.DATA_POLICY: Case(2, ("models.task.model", "No endpoints found that match your data policy"), 8),
    Mode.TAGGED_NAMES: Case(0, (*GOOD, "8 calls"), 8),
    Mode.NO_LIST: Case(0, (*GOOD, "8 calls"), 8),
    Mode.REFUSES_SEED: Case(0, (*GOOD, "8 calls"), 8, {"models": {"task": {"sampling": {"extra": {}}}}}),
    Mode.REFUSES_TEMPERATURE: Case(0, (*GOOD, "does not accept temperature: requests are sent without it"), 17),
    Mode.REFUSES_TOP_P: Case(
        0, (*GOOD, "does not accept top_p"), 17, {"models": {"task": {"sampling": {"top_p": 0.9}}}}
    ),
    Mode.REFUSES_STOP: Case(
        0, (*GOOD, "does not accept stop"), 17, {"models": {"task": {"sampling": {"stop": ["#"]}}}}
    ),
    Mode.REFUSES_MAX_TOKENS: Case(
        0, (*GOOD, "does not accept max_tokens: requests have max_completion_tokens instead"), 17
    ),
    Mode.NO_SYSTEM_ROLE: Case(
        2,
        ("System role not supported", "set tasks[0].position to question_begin"),
        4,
        SYSTEM,
        unchecked=(1, ("System role not supported",), 48),
    ),
    Mode.ONLY_STREAMS: Case(0, (*GOOD, "8 calls"), 17),
    Mode.BUSY_FOR_MS: Case(0, (*GOOD, "8 calls"), 9, behaviour={"retry_after_s": 0.7}),
    Mode.OVERLOADED: Case(0, (*GOOD, "8 calls"), 16),
    Mode.STATUS_498: Case(0, (*GOOD, "8 calls"), 16),
    Mode.ALWAYS_FAILS: Case(
        2,
        ("models.task.base_url", "HTTP 500: CUDA error: device-side assert triggered"),
        4,
        unchecked=(1, ("HTTP 500: CUDA error: device-side assert triggered",), 48),
    ),
}
ELSEWHERE = {
    Mode.SAYS: "test_the_words_of_a_body_are_shown",
    Mode.KEY_EXPIRES: "test_a_replaced_key_is_read_again",
    Mode.SMALL_BATCHES: "test_embeddings_are_asked_for_in_batches_that_the_endpoint_takes",
    Mode.OPTIMIZER_THINKS: "test_thoughts_of_the_optimizer_model_become_no_candidates",
    Mode.FILTERS_ONE_CANDIDATE: "test_a_filtered_candidate_ends_neither_the_run_nor_its_resumption",
}
"""Modes that another test is about."""


@pytest.fixture
def evaluate(
    endpoint: SimulatedEndpoint, gpo: RunGpo, write_config: WriteConfig, tmp_path: Path
) -> Callable[..., Finished]:
    """Runs ``gpo evaluate`` on eight examples, with changes to the small configuration."""

    def run(*options: object, checked: bool = True, **changes: Any) -> Finished:
        models = merged(CHECKED if checked else {}, {"task": {"max_attempts": 6}, "optimizer": {}})
        changes["models"] = merged(models, changes.get("models", {}))
        changes["evaluation"] = {"val_size": 8, "test_size": 8}
        config = write_config(tmp_path, endpoint.base_url, **changes)
        return gpo("evaluate", config, *options, cwd=tmp_path, env={"OPENAI_API_KEY": KEY})

    return run


def calls(endpoint: SimulatedEndpoint) -> int:
    return sum(call.path == CHAT for call in endpoint.requests)


def check_output(finished: Finished, code: int, words: tuple[str, ...]) -> None:
    printed = finished.stdout + finished.stderr
    assert finished.code == code, printed
    assert not [word for word in words if word not in printed], printed
    assert KEY not in printed
    assert not re.search(r"Traceback|Field required|Error code: \d", printed), printed


@pytest.mark.parametrize("mode", CASES)
def test_what_an_endpoint_does(mode: Mode, endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished]) -> None:
    case = CASES[mode]
    endpoint.behaviour = Behaviour(mode=mode, **case.behaviour)
    check_output(evaluate(**case.changes), case.code, case.words)
    assert calls(endpoint) <= case.calls


@pytest.mark.parametrize("mode", [mode for mode, case in CASES.items() if case.code != 0])
def test_what_an_endpoint_does_without_the_check(
    mode: Mode, endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpo.models.retrying._FIRST_BACKOFF_S", 0.001)
    case = CASES[mode]
    code, words, most = case.unchecked or (case.code, case.words, case.calls)
    endpoint.behaviour = Behaviour(mode=mode, **case.behaviour)
    check_output(evaluate(checked=False, **case.changes), code, tuple(word for word in words if "Warning" not in word))
    assert calls(endpoint) <= most


def test_the_second_round_of_the_check_is_not_wasted(
    endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished]
) -> None:
    check_output(evaluate(**TWO_ROUNDS), 0, (*GOOD, "16 calls"))
    assert calls(endpoint) == 16


def test_hidden_thoughts_count_towards_the_budget(
    endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished]
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.THINKS_UNSEEN)
    finished = evaluate("--set", "budget.tokens=2000", "--set", "models.task.max_concurrency=1")
    assert finished.code == 1
    assert "budget" in finished.stderr
    assert calls(endpoint) <= 8


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize(("status", "checked"), [(400, True), (400, False), (200, True)])
def test_the_words_of_a_body_are_shown(
    body: Any,
    status: int,
    checked: bool,
    endpoint: SimulatedEndpoint,
    evaluate: Callable[..., Finished],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpo.models.retrying._FIRST_BACKOFF_S", 0.001)
    endpoint.behaviour = Behaviour(mode=Mode.SAYS, error_status=status, error_body=body)
    finished = evaluate(checked=checked)
    check_output(finished, 2 if checked else 1, (WORDS,))
    assert (finished.stdout + finished.stderr).count(WORDS) == 1
    assert "<b>" not in finished.stderr
    assert calls(endpoint) <= (4 if checked else 8)


@pytest.mark.parametrize(("status", "words"), [(400, "the reply does not say why"), (200, "the reply has no content")])
def test_a_body_without_words_is_said_to_have_none(
    status: int, words: str, endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished]
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.SAYS, error_status=status)
    check_output(evaluate(), 2, (words,))


def test_an_address_without_v1_is_named(endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished]) -> None:
    url = endpoint.base_url.removesuffix("/v1")
    for checked in (True, False):
        finished = evaluate(checked=checked, models={"task": {"base_url": url}})
        check_output(finished, 2, ("models.task.base_url", f"up to and including /v1: {url}/v1"))


def test_a_judge_at_temperature_0_is_asked_without_it(
    endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished]
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.REFUSES_TEMPERATURE, mode_of=("opt-model",))
    task = {"answer": {"kind": "judge", "rubric": "The label is right."}}
    finished = evaluate(tasks=[task])
    check_output(finished, 0, (*GOOD, "opt-model does not accept temperature"))
    assert finished.stderr.count("does not accept") == 1


def test_a_replaced_key_is_read_again(
    endpoint: SimulatedEndpoint, evaluate: Callable[..., Finished], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("first", encoding="utf-8")

    def replace_key() -> None:
        while calls(endpoint) < 2:
            pass
        key.write_text("second", encoding="utf-8")

    endpoint.behaviour = Behaviour(mode=Mode.KEY_EXPIRES, calls_per_key=4, latency_s=0.05)
    thread = Thread(target=replace_key)
    thread.start()
    finished = evaluate(models={"task": {"api_key_file": str(key), "max_concurrency": 1}})
    thread.join()
    check_output(finished, 0, (*GOOD, "8 calls"))


def test_embeddings_are_asked_for_in_batches_that_the_endpoint_takes(
    endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.SMALL_BATCHES)
    config = write_config(
        tmp_path,
        endpoint.base_url,
        run={"seeds": [0]},
        models={"embedding": {"kind": "openai", "base_url": endpoint.base_url, "model": "embed-model"}},
        optimizer={"candidates": 8, "direction": {"trajectory": {"by": "relevance"}}},
        evaluation={"val_size": 4, "test_size": 4},
    )
    ((_, found),) = searched(config).items()
    trajectory = found.trajectory
    assert len(trajectory.steps) == 3
    texts = [candidate.prompt.text for step in trajectory.steps for candidate in step.candidates]
    assert len(texts) > 10

    async def embed_all() -> int:
        embedding = embedder(load_config(config, []), Access({}, LocalLimiter(), "alone"))
        return len(await embedding.embed(texts))

    assert asyncio.run(embed_all()) == len(texts)  # as a resumed run does
    assert 400 in {call.status for call in endpoint.requests}


def test_thoughts_of_the_optimizer_model_become_no_candidates(
    endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.OPTIMIZER_THINKS)
    config = write_config(
        tmp_path, endpoint.base_url, run={"seeds": [0]}, optimizer={"steps": 1, "candidates": len(OPTIMIZER_REPLIES)}
    )
    ((_, found),) = searched(config).items()
    trajectory = found.trajectory
    (step,) = trajectory.steps
    assert sorted(candidate.prompt.text for candidate in step.candidates) == [
        "Name the label, after a closing tag.",
        "Name the label, below the thoughts.",
        "Name the label, in tags.",
        "Name the label, in the final channel.",
        "Name the label, on the same line.",
    ]
    assert step.samples.num_malformed == 2


def test_a_filtered_candidate_is_dropped_and_the_search_continues(
    endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(mode=Mode.FILTERS_ONE_CANDIDATE)
    ((_, found),) = searched(write_config(tmp_path, endpoint.base_url, run={"seeds": [0]})).items()
    trajectory = found.trajectory
    assert len(trajectory.steps) == 3
    assert [prompt.text for step in trajectory.steps for prompt in step.unscored] == [
        "Answer with the forbidden phrase."
    ]


def test_every_mode_is_tested_and_documented() -> None:
    assert CASES.keys() | ELSEWHERE.keys() == set(Mode)
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name in ELSEWHERE.values() if f"def {name}(" not in tests]
    page = (ROOT / "docs/reference/endpoints.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\| `(\w+)` \|$", page, re.MULTILINE)) == set(Mode)
