"""A run whose endpoint does everything wrong; ``tests/e2e/test_canary.py`` searches Ray's files and memory, too."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpo
from benchmarks.simulated_endpoint import BadReply, Behaviour, SimulatedEndpoint
from tests.e2e.secrets import leaks
from tests.unit.cluster.api.test_optimize import arguments

# One in a variable, one in a file; with characters that JSON, HTML and URLs escape.
KEY, FILED = 'sk-canary-5d1f0b/"env"&', "sk-canary-77e2c9'<file>%"
ALL_AT_ONCE = Behaviour(
    latency_s=0.01,
    error_rate=0.05,
    repeats_key=True,
    bad_replies=dict.fromkeys(BadReply, 0.5 / len(BadReply)),
)
_OF_NEW_PROMPTS = {BadReply.WRONG_TAG, BadReply.DUPLICATE, BadReply.IDENTICAL, BadReply.INJECTION}


def everything_went_wrong(endpoint: SimulatedEndpoint) -> bool:
    """Whether the endpoint has sent an error, every kind of bad reply, and a bad reply to a request for a prompt."""
    records = list(endpoint.requests)
    bad = {record.bad for record in records}
    is_complete = bad >= set(BadReply) - _OF_NEW_PROMPTS and bool(bad & _OF_NEW_PROMPTS)
    return is_complete and 500 in {record.status for record in records}


def test_a_run_on_a_faulty_endpoint_completes_and_leaks_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    key = tmp_path / "key"
    key.write_text(FILED, encoding="utf-8")
    with SimulatedEndpoint(ALL_AT_ONCE) as endpoint:
        task = gpo.Endpoint(endpoint.base_url, model="task-model", sampling={"max_tokens": 64}, check=False)
        optimizer = gpo.Endpoint(
            endpoint.base_url, model="opt-model", api_key_file=str(key), max_attempts=6, check=False
        )
        run = gpo.optimize(
            **arguments(
                endpoint,
                tmp_path,
                task_model=task,
                optimizer_model=optimizer,
                seed=[0, 1],
                optimizer={"candidates": 8},
                # A huge reply is refused, which leaves its example unscored.
                evaluation={"val_size": 20, "test_size": 30, "max_unscored": 0.5},
            )
        )
        assert everything_went_wrong(endpoint)
    assert (run.status, run.errors) == ("completed", {})
    used = run.summary["llm"]["task"]
    assert all(used[name] > 0 for name in ("retries", "failures", "empty", "truncated", "unmetered")), used
    assert sum(row["samples"][name] for row in run.summary["trajectories"] for name in ("malformed", "failed")) > 0
    assert b"***" in b"".join(path.read_bytes() for path in tmp_path.glob("completions.sqlite*"))
    assert leaks(tmp_path) == []
    assert "canary" not in caplog.text + "".join(capfd.readouterr())
