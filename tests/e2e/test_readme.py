"""Every command that the README and the tutorial show is run here, as a reader would type it."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from gpo.data.task import Split
from tests.commands import Finished, Gpo, RunGpo, gpo_in_this_process
from tests.pages import commands, files
from tests.paths import ROOT

MODELS = ("gpt-4o", "gpt-4o-mini")
PAGES = ("README.md", "docs/tutorial/first-run.md", "docs/tutorial/own-data.md", "docs/tutorial/own-metric.md")


def write_data(folder: Path, prefix: str = "", **columns: object) -> None:
    """Write the examples of the quickstart's first task into three files, with more columns if wanted."""
    for split in ("train", "val", "test"):
        lines = (ROOT / "configs/quickstart/sentiment" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.dumps({**json.loads(line), **columns}) for line in lines[:24]]
        (folder / f"{prefix}{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")


def write_table(folder: Path) -> None:
    """Write the examples of the quickstart's first task into one table, as the tutorial's reader does."""
    write_data(folder)
    lines = [line for split in Split for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    with (folder / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((row["text"], row["label"]) for row in rows)])


def type_in(gpo: RunGpo, command: str, folder: Path, *more: str, **env: str) -> Finished:
    """Run a command in a folder; its replies are cached below that folder."""
    program, *arguments = shlex.split(command)
    assert program == "gpo"
    if arguments[0] in ("run", "compare", "sweep", "evaluate"):
        more = (*more, "--set", f"cache.path={folder / 'completions.sqlite'}")
    return gpo(*arguments, *more, cwd=folder, env=env)


@pytest.fixture
def endpoint() -> SimulatedEndpoint:
    with SimulatedEndpoint(Behaviour(api_key="a-key", models=MODELS)) as running:
        yield running


def access(endpoint: SimulatedEndpoint) -> dict[str, str]:
    """The variables that a reader exports."""
    return {"OPENAI_API_KEY": "a-key", "OPENAI_BASE_URL": endpoint.base_url}


def completions(endpoint: SimulatedEndpoint) -> int:
    """How many completions the endpoint was asked for; the check of its models is none."""
    return sum(bool(request.model) for request in endpoint.requests)


def test_every_command_is_covered() -> None:
    covered = (
        "make run",
        "make test",
        "source .venv/bin/activate",
        "export OPENAI_API_KEY=",
        "export OPENAI_BASE_URL=",
    )
    rest = [command for page in PAGES for command in commands(page) if not command.startswith(covered)]
    tested = (
        *commands("docs/tutorial/first-run.md", "gpo"),
        *commands("docs/tutorial/own-data.md", "gpo"),
        *commands("docs/tutorial/own-metric.md", "gpo"),
        "gpo run reviews.yaml",  # as in own-data.md, with another folder
        *("gpo compare configs/endpoint.yaml", "gpo sweep configs/sweeps/quickstart.yaml"),
        *("gpo serve configs/quickstart.yaml", "gpo --help"),
    )
    assert not set(rest) - set(tested)


@pytest.mark.parametrize(
    ("target", "wanted"), [("run", "gpo run configs/quickstart.yaml"), ("test", "/pytest"), ("docs", "-m sphinx")]
)
def test_make_targets_do_what_the_pages_say(target: str, wanted: str) -> None:
    planned = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
    assert wanted in planned.stdout
    if target == "run":
        assert "requirements.lock" not in planned.stdout  # development tools are not needed to run
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_first_run_of_the_tutorial(gpo: Gpo, tmp_path: Path) -> None:
    run, status, report, _ = commands("docs/tutorial/first-run.md", "gpo")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")

    done = type_in(gpo, run, tmp_path, "--set", "evaluation.test_size=16")

    assert done.code == 0, done.stderr
    folder = tmp_path / "runs" / "first"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "completed"
    assert [(row["task"], row["seed"], row["steps"]) for row in summary["trajectories"]] == [
        ("sentiment", 7, 1),
        ("language", 7, 1),
    ]
    # The initial prompts fail because the model chats; a single step finds a way out of that.
    gains = [row["best"]["test"] - row["initial"]["test"] for row in summary["trajectories"]]
    assert max(gains) >= 0.2, summary["trajectories"]

    listed = re.findall(r"^\| `(\S+)` \|", (ROOT / "docs/tutorial/first-run.md").read_text("utf-8"), re.MULTILINE)
    assert len(listed) == 5
    assert all((folder / name).is_file() for name in listed)

    assert "completed" in type_in(gpo_in_this_process, status, tmp_path).stdout
    (folder / "report.html").unlink()
    assert type_in(gpo_in_this_process, report, tmp_path).code == 0
    assert (folder / "report.html").is_file()


def test_a_reader_scores_one_prompt(gpo: Gpo, tmp_path: Path) -> None:
    (evaluate,) = commands("docs/tutorial/first-run.md", "gpo evaluate")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")

    done = type_in(gpo, evaluate, tmp_path, "--set", "evaluation.test_size=8")

    assert done.code == 0, done.stderr
    assert re.search(r"sentiment test: \d+\.\d % \(90 % interval: .*\), 8 examples", done.stdout)


def test_a_reader_optimizes_a_prompt_for_their_own_data(gpo: Gpo, endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    page = "docs/tutorial/own-data.md"
    init, plan, run, resume, _ = commands(page, "gpo")
    write_table(tmp_path)
    fewer = ("--set", "optimizer.steps=1")

    proposed = type_in(gpo_in_this_process, init, tmp_path)
    assert proposed.code == 0, proposed.stderr
    assert "CHECK" not in proposed.stdout
    written = (tmp_path / "reviews.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(written) == yaml.safe_load(files(page)["reviews.yaml"])

    planned = type_in(gpo_in_this_process, plan, tmp_path)
    assert planned.code == 0, planned.stderr
    assert "≤ 734" in planned.stdout  # 12, 12·(8·3 + 4·3 + 2·6 + 3) and 2·26 answers, 2 on 29

    done = type_in(gpo, run, tmp_path, *fewer, **access(endpoint))
    assert done.code == 0, done.stderr
    folder = tmp_path / "runs" / "reviews"
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"] == "completed"
    best = (folder / "best_prompts.json").read_text(encoding="utf-8")

    calls = completions(endpoint)
    done = type_in(gpo_in_this_process, resume, tmp_path, *fewer, **access(endpoint))
    assert done.code == 0, done.stderr
    assert completions(endpoint) == calls
    assert (folder / "best_prompts.json").read_text(encoding="utf-8") == best


@pytest.mark.slow
def test_a_reader_limits_what_a_run_may_spend(gpo: Gpo, endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    page = "docs/tutorial/own-data.md"
    (small,) = (command for command in commands(page, "gpo") if "budget" in command)
    (tmp_path / "reviews.yaml").write_text(files(page)["reviews.yaml"], encoding="utf-8")
    write_table(tmp_path)

    done = type_in(gpo, small, tmp_path, **access(endpoint))

    assert done.code == 1, done.stderr
    summary = json.loads((tmp_path / "runs" / "small" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "budget_exhausted"


def test_a_reader_scores_answers_with_their_own_metric(gpo: Gpo, endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    page = "docs/tutorial/own-metric.md"
    evaluate, run, plan = commands(page, "gpo")
    for name, content in files(page).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with (tmp_path / "ratings.py").open("a", encoding="utf-8") as module:
        module.write("class Last:\n    def choose(self, trajectory, candidates): return candidates[-1]\n")
    write_data(tmp_path, "ratings-", stars=3)

    done = type_in(gpo, evaluate, tmp_path, **access(endpoint))
    assert done.code == 0, done.stderr
    assert "ratings val:" in done.stdout

    # A strategy of the reader's own, too; see how-to/own-strategies.md.
    done = type_in(gpo, run, tmp_path, "--set", "optimizer.acceptance.kind=ratings:Last", **access(endpoint))
    assert done.code == 0, done.stderr
    assert json.loads((tmp_path / "runs/ratings/summary.json").read_text(encoding="utf-8"))["status"] == "completed"
    steps = [json.loads(line) for line in (tmp_path / "runs/ratings/steps.jsonl").read_text().splitlines()]
    assert steps
    assert all(step["successor"] == step["candidates"][-1]["prompt"] for step in steps)
    reasons = {failure["reason"] for step in steps for failure in step["failures"]}
    assert reasons == {"the answer contains no number from 1 to 5"}
    report = (tmp_path / "runs/ratings/report.html").read_text(encoding="utf-8")
    assert "the answer contains no number from 1 to 5" in report

    planned = type_in(gpo_in_this_process, plan, tmp_path)
    assert planned.code == 0, planned.stderr
    assert "judge" in planned.stdout


@pytest.mark.slow
def test_methods_are_compared(gpo: Gpo, endpoint: SimulatedEndpoint, tmp_path: Path) -> None:
    (command,) = commands("README.md", "gpo compare")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    fewer = ("--set", "optimizer.steps=2", "--set", "run.seeds=[0]", "--run-dir", "run")

    done = type_in(gpo, command, tmp_path, *fewer, **access(endpoint))

    assert done.code == 0, done.stderr
    table = (tmp_path / "run" / "comparison.md").read_text(encoding="utf-8")
    assert {"gpo", "ape", "apo", "opro", "pe2", "sgdm"} <= set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE))


@pytest.mark.slow
def test_hyperparameters_are_tuned_on_the_embedded_model(gpo: Gpo, tmp_path: Path) -> None:
    (command,) = commands("README.md", "gpo sweep")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    fewer = ("sweep.trials=2", "optimizer.steps=1", "run.seeds=[0]", "evaluation={val_size: 6, test_size: 6}")

    done = type_in(gpo, command, tmp_path, *(word for one in fewer for word in ("--set", one)), "--run-dir", "run")

    assert done.code == 0, done.stderr
    assert json.loads((tmp_path / "run" / "sweep.json").read_text(encoding="utf-8"))["status"] == "completed"
    assert (tmp_path / "run" / "best_config.yaml").is_file()


def test_the_evaluator_is_served(gpo: Gpo, tmp_path: Path) -> None:
    (command,) = commands("README.md", "gpo serve")
    more = ("--port", "0", "--set", f"cache.path={tmp_path / 'completions.sqlite'}")

    serving = gpo.start(*shlex.split(command)[1:], *more, cwd=ROOT)
    assert serving.process.stderr is not None
    announced = next(line for line in serving.process.stderr if "Serving" in line)
    (url,) = re.findall(r"http://\S+/v1/evaluate", announced)
    body = {"task": "language", "split": "val", "prompt": "What is the language of the text? Name it."}
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=120) as reply:  # noqa: S310
        (score,) = json.load(reply)["scores"]
    serving.interrupt()

    assert serving.process.wait(timeout=60) == 0
    assert len(score["values"]) == 24
    assert 0 <= score["mean"] <= 1


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("", "Exit codes"),
        ("run", "--resume"),
        ("compare", "--method"),
        ("plan", "--output"),
        ("evaluate", "--split"),
        ("serve", "GPO_SERVE_TOKEN"),
    ],
)
def test_help_has_the_expected_content(command: str, wanted: str) -> None:
    # In this process: the text is the same, and Python starts once.
    from typer.testing import CliRunner

    from cluster.cli.app import app

    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "100", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert wanted in shown.stdout
