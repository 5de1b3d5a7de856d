from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.commands import gpo_in_this_process
from tests.paths import ROOT, read_json, read_json_lines

if TYPE_CHECKING:
    from tests.commands import Finished, Gpo
    from tests.configs import WriteConfig
    from tests.conftest import Until

METHODS = ("gpo", "sgdm")
STEPS, CANDIDATES, VAL, TEST = 3, 3, 20, 30
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[SimulatedEndpoint]:
    with SimulatedEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def config(endpoint: SimulatedEndpoint, write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(
        tmp_path_factory.mktemp("compare"),
        endpoint.base_url,
        tasks=[{}, {"name": "desks", "prompt": "Which desk is it?"}],
        optimizer={"steps": STEPS, "candidates": CANDIDATES},
        compare=list(METHODS),
    )


def _paid(endpoint: SimulatedEndpoint, since: int = 0) -> Counter[tuple[str, str]]:
    return Counter((call.model, call.content) for call in endpoint.requests[since:] if call.model)


@pytest.fixture(scope="module")
def undisturbed(gpo: Gpo, config: Path) -> Finished:
    return gpo("compare", config, "--run-dir", "whole", cwd=config.parent)


def _document(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "comparison.json"))


def test_the_table_holds_the_result_of_each_method(
    undisturbed: Finished, config: Path, endpoint: SimulatedEndpoint
) -> None:
    assert undisturbed.code == 0, undisturbed.stderr
    document = _document(config.parent / "whole")
    assert document["status"] == "completed"
    assert [method["name"] for method in document["methods"]] == list(METHODS)
    for method in document["methods"]:
        assert method["seeds"] == list(SEEDS)
        assert 0 <= method["best"]["test"]["mean"] <= 1
        assert method["best"]["val"]["mean"] >= method["initial"]["val"]["mean"]
        assert method["best"]["test"]["stderr"] is not None
        assert set(method["best"]["test"]["by_seed"]) == {"0", "1"}
        assert set(method["tasks"]) == {"triage", "desks"}
        expected = sum(method["tasks"][task]["best"]["test"]["mean"] for task in ("triage", "desks")) / 2
        assert method["best"]["test"]["mean"] == pytest.approx(expected, abs=1e-3)
        summary = read_json(config.parent / "whole" / method["name"] / "summary.json")
        assert summary["llm"] == method["llm"]
        (average,) = summary["averages"]
        assert {name: average[name] for name in ("initial", "best")} == {
            name: method[name] for name in ("initial", "best")
        }
    answered = [call.model for call in endpoint.requests if call.model]
    assert Counter(answered[: sum(_calls(document).values())]) == _calls(document)
    markdown = (config.parent / "whole" / "comparison.md").read_text(encoding="utf-8")
    for shown in (*METHODS, "triage", "desks", "all tasks", "% intervals"):
        assert shown in markdown
        assert shown in undisturbed.stdout


def _calls(document: dict[str, Any]) -> Counter[str]:
    return Counter(
        {
            model: sum(method["llm"][role]["requests"] for method in document["methods"])
            for model, role in (("task-model", "task"), ("opt-model", "optimizer"))
        }
    )


def test_reflections_and_summaries_cost_as_many_calls_as_the_formula_says(undisturbed: Finished, config: Path) -> None:
    steps = read_json_lines(config.parent / "whole" / "sgdm" / "steps.jsonl")
    assert all(step["reflection"] for step in steps)
    assert [step["summary"] is None for step in steps] == [step["step"] == 0 for step in steps]
    (_, sgdm) = _document(config.parent / "whole")["methods"]
    trajectories = len(SEEDS) * 2
    asked = {role: usage["requests"] + usage["cached"] for role, usage in sgdm["llm"].items()}
    assert asked["optimizer"] == trajectories * (STEPS * (CANDIDATES + 1) + STEPS - 1)
    tried = sum(len(step["candidates"]) for step in steps)
    rows = read_json(config.parent / "whole" / "sgdm" / "summary.json")["trajectories"]
    ends = sum(len({row["initial"]["prompt"], row["best"]["prompt"]}) for row in rows)
    batches = trajectories * STEPS * 8
    assert asked["task"] == (trajectories + tried) * VAL + ends * TEST + batches


@pytest.mark.slow
def test_an_interrupted_comparison_is_resumed(
    undisturbed: Finished, gpo: Gpo, config: Path, endpoint: SimulatedEndpoint, until: Until
) -> None:
    folder = config.parent / "parts"
    endpoint.behaviour = Behaviour(latency_s=0.05)
    # With an empty completion cache: with that of the other comparison, this one would end before the interrupt.
    own = ("--set", f"cache.path={config.parent / 'parts.sqlite'}")
    started = gpo.start("compare", config, "--run-dir", "parts", *own, cwd=config.parent)
    until(lambda: (folder / "sgdm" / "steps.jsonl").is_file() and (folder / "sgdm" / "steps.jsonl").stat().st_size > 0,
          "the second method has made a step")  # fmt: skip
    started.interrupt()
    first = started.finish()
    assert first.code == 1
    assert f"gpo compare {config} {' '.join(own)} --run-dir {folder} --resume" in first.stderr
    assert _document(folder)["status"] == "interrupted"
    assert _document(folder)["methods"][0]["status"] == "completed"
    run_id = _document(folder)["run_id"]

    endpoint.behaviour, between = Behaviour(), len(endpoint.requests)
    second = gpo("compare", config, "--run-dir", "parts", "--resume", *own, cwd=config.parent)

    assert second.code == 0, second.stderr
    assert _document(folder)["run_id"] == run_id
    whole, parts = (_document(config.parent / name) for name in ("whole", "parts"))
    for one, other in zip(whole["methods"], parts["methods"], strict=True):
        assert {**one, "wall_s": 0, "llm": 0, "calls": 0, "tokens": 0} == {
            **other, "wall_s": 0, "llm": 0, "calls": 0, "tokens": 0,
        }  # fmt: skip
    # The first method was complete: none of its calls is paid for again.
    resumed = sum(count for (model, _), count in _paid(endpoint, between).items() if model == "opt-model")
    assert 0 < resumed <= parts["methods"][1]["llm"]["optimizer"]["requests"]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "gop"), "--method: 'gop' is not a method; did you mean 'gpo'?"),
        (("--set", "optimizer.stepps=3"), "optimizer.stepps: is not an option; did you mean 'steps'?"),
        (("--run-dir", "whole"), "holds a comparison already; add --resume"),
        (("--run-dir", "whole", "--method", "pe2"), "holds a comparison already; add --resume"),
        (("--run-dir", "whole", "--resume", "--method", "gpo"), "has gpo, sgdm, not gpo; resume with the same methods"),
        (("--run-dir", "whole/gpo"), "holds a run, not a comparison"),
        (("--set", "optimizer.schedule.initial=9"), "has no effect"),
    ],
)
def test_a_mistake_is_reported_before_any_call_and_changes_no_file(
    undisturbed: Finished, config: Path, endpoint: SimulatedEndpoint, options: tuple[str, str], message: str
) -> None:
    before, files = len(_paid(endpoint)), _files(config.parent / "whole")
    refused = gpo_in_this_process("compare", config, *options, cwd=config.parent)
    assert refused.code == 2
    assert message in refused.stderr
    assert len(_paid(endpoint)) == before
    assert _files(config.parent / "whole") == files


@pytest.mark.slow
def test_the_benchmark_of_the_methods_completes(tmp_path: Path) -> None:
    options = ("--method", "gpo", "--set", "run.seeds=[0]", "--set", "optimizer.steps=1")
    command = [sys.executable, "-m", "benchmarks.compare_methods", str(tmp_path), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert _document(tmp_path / "results")["tasks"] == ["tickets", "weather", "repairs", "crafts"]
