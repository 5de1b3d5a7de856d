"""Mistakes that ``gpo run`` reports after a call to each model at most, and before it starts Ray.

``tests/unit/cluster/config`` has those of a configuration alone.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.configs import CHECKED, merged
from tests.paths import TRIAGE

if TYPE_CHECKING:
    from tests.commands import RunGpo
    from tests.configs import WriteConfig

KEY = "canary-3c9be0"


TICKET = json.dumps({"text": "where is my parcel", "label": "shipping"})


@dataclass(frozen=True)
class Case:
    """A mistake, and the words that the error must hold: field, value, remedy.

    Attributes:
        changes: to the small configuration.
        name, text: a file in the working directory with its new content; ``None`` removes it.
        hidden: a secret that the error must not show.
    """

    words: tuple[str, ...]
    changes: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    name: str = ""
    text: str | None = None
    hidden: str | None = None


SETTINGS = {
    "tasks.0.fields.input=ticket": ("tasks[0].data.train", "train.jsonl:1", "'ticket'", "text, label", "fields.input"),
    "tasks.0.answer.kind=exactly": ("tasks[0].answer.kind", "'exactly'", "choose one of", "'exact'"),
    "tasks.0.answer.kind=number": ("tasks[0].answer.kind", "'number' would judge", "targets wrong", "choose the kind"),
    "optimizer.schedule.final=-5": ("optimizer.schedule.final", "-5", "above 0"),
    "models.optimizer.base_url=http://127.0.0.1:9/v1": (
        "models.optimizer.base_url",
        ":9/v1 cannot be reached",
        "correct",
    ),
    "models.optimizer.model=opt-modle": ("models.optimizer.model", "'opt-modle' is unknown", "correct the name"),
    "models.task.api_key_env=MY_KEY": ("models.task.api_key_env", "MY_KEY is not set", "export MY_KEY="),
    "models.task.api_key_file=nothing": ("models.task.api_key_file", "nothing' cannot be read", "a readable file"),
    "models.task={kind: embedded, gguf: train.jsonl}": ("models.task.gguf", "train.jsonl' is not a GGUF file", ".gguf"),
    "run.seeds=[3, 4, 3]": ("run.seeds", "duplicate seed '3'", "seeds must be unique"),
}
OPTIONS = {
    ("--address", "ray://127.0.0.1:10001"): ("--address", "'ray://127.0.0.1:10001'", "use local, auto or HOST:PORT"),
    ("--address", "somewhere"): ("--address", "'somewhere'", "use local, auto or HOST:PORT"),
    ("--address", "127.0.0.1:9"): ("--address", "nothing answers at '127.0.0.1:9'", "ray start --head"),
    ("--run-dir", ""): ("--run-dir", "is empty", "name a folder"),
    ("--run-dir", "/sys/gpo-run"): ("--run-dir", "'/sys/gpo-run'", "name another"),
    ("--run-dir", "config.yaml/run"): ("--run-dir", "config.yaml/run' cannot be read", "name a folder"),
}
CASES = {
    **{setting: Case(words, options=("--set", setting)) for setting, words in SETTINGS.items()},
    **{" ".join(options): Case(words, options=options) for options, words in OPTIONS.items()},
    "a missing configuration": Case(("CONFIG", "config.yaml' does not exist", "name a YAML file"), name="config.yaml"),
    "invalid YAML": Case(
        ("CONFIG", "config.yaml' is not valid YAML (line 3", "correct that line"),
        name="config.yaml",
        text="run:\n  name: [\n",
    ),
    "a missing data file": Case(
        ("tasks[0].data.val", "val.jsonl' does not exist", "correct the path"), name="val.jsonl"
    ),
    "an empty split": Case(
        ("tasks[0].data.test", "test.jsonl' contains no example", "at least one"), name="test.jsonl", text="\n"
    ),
    "half a line": Case(
        ("tasks[0].data.val (val.jsonl:2)", "not valid JSON", "one complete JSON object on each line"),
        name="val.jsonl",
        text=f"{TICKET}\n{TICKET[:20]}",
    ),
    "an example in two splits": Case(
        ("tasks[0].data", "is in both train and test", "keep it in one split only"),
        name="test.jsonl",
        text=(TRIAGE / "train.jsonl").read_text(encoding="utf-8"),
    ),
    "a refused key": Case(
        ("models.task.api_key_env", "HTTP 401", "OPENAI_API_KEY", "set a key"),
        env={"OPENAI_API_KEY": "canary-of-another"},
        hidden="canary-of-another",
    ),
    "an unknown embedding model": Case(
        ("models.embedding.model", "'nothing'", "the model `nothing`", "correct the name"),
        {"models": {"embedding": {"kind": "openai", "model": "nothing"}}},
        env={"OPENAI_BASE_URL": "ENDPOINT"},
    ),
    "two keys in a file": Case(
        ("models.task.api_key_file", "characters that no key has", "nothing else"),
        {"models": {"task": {"api_key_file": "keys"}}},
        name="keys",
        text=f"{KEY}\n{KEY}\n",
        hidden=KEY,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mistake_is_one_line_with_field_value_and_remedy(
    case: Case, endpoint: SimulatedEndpoint, gpo: RunGpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(api_key=KEY)
    for split in ("train", "val", "test"):
        shutil.copy(TRIAGE / f"{split}.jsonl", tmp_path)
    changes = {**case.changes, "models": merged(CHECKED, case.changes.get("models", {}))}
    config = write_config(tmp_path, endpoint.base_url, **changes)
    config.write_text(config.read_text(encoding="utf-8").replace(f"{TRIAGE}/", ""), encoding="utf-8")
    if case.text is not None:
        (tmp_path / case.name).write_text(case.text, encoding="utf-8")
    elif case.name:
        (tmp_path / case.name).unlink()
    env = {"OPENAI_API_KEY": KEY, **case.env}
    env = {name: endpoint.base_url if value == "ENDPOINT" else value for name, value in env.items()}
    finished = gpo("run", config, *case.options, cwd=tmp_path, env=env)

    assert finished.code == 2, finished.stderr
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert not [word for word in case.words if word not in line], line
    assert not case.hidden or case.hidden not in line
    assert len(endpoint.requests) <= 3
    assert not (tmp_path / "runs").exists()


def test_an_address_beyond_loopback_needs_a_token(gpo: RunGpo, write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9/v1")
    finished = gpo("serve", config, "--host", "0.0.0.0", cwd=tmp_path)  # noqa: S104
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert "--host" in line
    assert "0.0.0.0" in line  # noqa: S104
    assert "export GPO_SERVE_TOKEN=" in line


def test_a_plan_names_a_missing_file(gpo: RunGpo, write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9/v1", tasks=[{"data": {"val": "gone.jsonl"}}])
    done = gpo("plan", config, cwd=tmp_path)
    assert done.code == 2
    assert "gone.jsonl' does not exist" in done.stderr


def test_a_refused_run_leaves_no_folder_even_if_it_was_to_be_resumed(
    gpo: RunGpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9/v1", models={"task": {"api_key_env": "MY_KEY"}})
    for options in ([], ["--resume"]):
        refused = gpo("run", config, *options, "--run-dir", tmp_path / "refused", cwd=tmp_path)
        assert refused.code == 2
        assert "MY_KEY is not set" in refused.stderr
        assert not (tmp_path / "refused").exists()
