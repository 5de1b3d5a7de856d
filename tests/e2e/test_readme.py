"""Every command that the README shows is run here, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def shown(*beginnings: str) -> list[str]:
    """The README's commands that begin like this."""
    found = [command for command in COMMANDS if command.startswith(beginnings)]
    assert found, f"the README shows no {beginnings}"
    return found


def arguments(command: str) -> list[str]:
    """The command for the environment that the tests run in."""
    program, *rest = shlex.split(command)
    assert program == ".venv/bin/gpo"
    return [str(BIN / "gpo"), *rest]


def run(command: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the project's folder; what it writes goes to ``tmp_path``."""
    parts = arguments(command)
    if parts[1] in ("run", "compare", "sweep"):
        parts += ["--run-dir", str(tmp_path / "run")]
    if parts[1] in ("run", "compare", "evaluate", "sweep"):
        parts += ["--set", f"cache.path={tmp_path / 'completions.sqlite'}"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "RAY_", "GPO_"))}
    return subprocess.run(parts, cwd=ROOT, env={**inherited, **env}, capture_output=True, text=True, timeout=280)


def test_every_command_is_covered() -> None:
    covered = (
        shown("make ")
        + shown("export ")
        + shown(".venv/bin/gpo run", ".venv/bin/gpo evaluate", ".venv/bin/gpo serve", ".venv/bin/gpo compare")
        + shown(".venv/bin/gpo plan", ".venv/bin/gpo sweep")
        + shown(".venv/bin/gpo --help")
    )
    assert sorted(covered) == sorted(COMMANDS)


def test_make_runs_the_quickstart_and_the_tests() -> None:
    assert shown("make ") == ["make run", "make test"]
    for target, wanted in (("run", "gpo run configs/quickstart.yaml"), ("test", "/pytest")):
        planned = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert wanted in planned.stdout
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_quickstart_runs_on_the_embedded_model(tmp_path: Path) -> None:
    (command,) = shown(".venv/bin/gpo run configs/quickstart.yaml")

    done = run(command, tmp_path)

    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "completed"
    assert [(row["task"], row["seed"], row["steps"]) for row in summary["trajectories"]] == [
        ("sentiment", 7, 1),
        ("language", 7, 1),
    ]
    # The initial prompts fail because the model chats; a single step finds a way out of that.
    gains = [row["best"]["test"] - row["initial"]["test"] for row in summary["trajectories"]]
    assert max(gains) >= 0.2, summary["trajectories"]


def test_an_endpoint_is_named_by_the_environment(tmp_path: Path) -> None:
    (command,) = shown(".venv/bin/gpo run configs/endpoint.yaml")
    assert [line.partition("=")[0] for line in shown("export ")] == ["export OPENAI_API_KEY", "export OPENAI_BASE_URL"]

    with SimulatedEndpoint(Behaviour(api_key="a-key", models=("gpt-4o", "gpt-4o-mini"))) as endpoint:
        done = run(command, tmp_path, OPENAI_API_KEY="a-key", OPENAI_BASE_URL=endpoint.base_url)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["status"] == "completed"


def test_a_run_is_planned(tmp_path: Path) -> None:
    (command,) = shown(".venv/bin/gpo plan")

    done = run(command, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "≤ 5,152" in done.stdout  # 2 seeds, 1 + 6·8 prompts on 48 examples, 2 on 112


@pytest.mark.slow
def test_methods_are_compared(tmp_path: Path) -> None:
    (command,) = shown(".venv/bin/gpo compare")
    fewer = " --set optimizer.steps=2 --set run.seeds=[0]"

    with SimulatedEndpoint(Behaviour(models=("gpt-4o", "gpt-4o-mini"))) as endpoint:
        done = run(command + fewer, tmp_path, OPENAI_BASE_URL=endpoint.base_url)

    assert done.returncode == 0, done.stderr
    table = (tmp_path / "run" / "comparison.md").read_text(encoding="utf-8")
    assert {"gpo", "ape", "apo", "opro", "pe2", "sgdm"} <= set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE))


@pytest.mark.slow
def test_hyperparameters_are_tuned_on_the_embedded_model(tmp_path: Path) -> None:
    (command,) = shown(".venv/bin/gpo sweep")
    fewer = ("sweep.trials=2", "optimizer.steps=1", "run.seeds=[0]", "evaluation={val_size: 6, test_size: 6}")

    done = run(" ".join([command, *(f"--set {shlex.quote(one)}" for one in fewer)]), tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "sweep.json").read_text(encoding="utf-8"))["status"] == "completed"
    assert (tmp_path / "run" / "best_config.yaml").is_file()


def test_a_prompt_is_evaluated_on_the_embedded_model(tmp_path: Path) -> None:
    (command,) = shown(".venv/bin/gpo evaluate")

    done = run(command, tmp_path)

    assert done.returncode == 0, done.stderr
    assert re.search(r"sentiment test: \d+\.\d % ± .* 48 examples", done.stdout)


def test_the_evaluator_is_served(tmp_path: Path) -> None:
    (command,) = shown(".venv/bin/gpo serve")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "RAY_", "GPO_"))}
    parts = [*arguments(command), "--port", "0", "--set", f"cache.path={tmp_path / 'completions.sqlite'}"]

    with subprocess.Popen(parts, cwd=ROOT, env=inherited, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr is not None
            announced = next(line for line in serving.stderr if "Serving" in line)
            (url,) = re.findall(r"http://\S+/v1/evaluate", announced)
            body = {"task": "language", "split": "val", "prompt": "What is the language of the text? Name it."}
            request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
            with urlopen(request, timeout=120) as reply:  # noqa: S310
                (score,) = json.load(reply)["scores"]
        finally:
            serving.send_signal(signal.SIGINT)
            serving.wait(timeout=60)

    assert len(score["values"]) == 24
    assert 0 <= score["mean"] <= 1
    assert serving.returncode == 0


@pytest.mark.parametrize("command", ["", "run", "compare", "plan", "evaluate", "serve"])
def test_help_teaches(command: str) -> None:
    parts = [str(BIN / "gpo"), *([command] if command else []), "--help"]
    done = subprocess.run(parts, capture_output=True, text=True, timeout=60, check=True)
    assert {
        "": "Exit codes",
        "run": "--resume",
        "compare": "--method",
        "plan": "--output",
        "evaluate": "--split",
        "serve": "GPO_SERVE_TOKEN",
    }[command] in done.stdout
