"""Mistakes that ``gpo run`` reports before it calls a language model or starts Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint
from tests.paths import TRIAGE

if TYPE_CHECKING:
    from tests.commands import RunGpo
    from tests.configs import WriteConfig

KEY = "canary-3c9be0"


def _rewrite(name: str, text: str) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return rewrite


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _ticket(text: str = "where is my parcel", **columns: str) -> str:
    return json.dumps({"text": text, "label": "shipping", **columns}) + "\n"


def _repeat_a_train_ticket_in_test(folder: Path) -> None:
    first = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    with (folder / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write(first + "\n")


@dataclass(frozen=True)
class Case:
    """A mistake, and the words that the error must hold: field, value, remedy.

    Attributes:
        changes: to the small configuration.
        files: changes the files in the working directory.
        hidden: a secret that the error must not show.
    """

    words: tuple[str, ...]
    changes: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    files: Callable[[Path], None] = lambda _: None
    hidden: str | None = None


CASES = {
    "a missing configuration": Case(
        ("CONFIG", "config.yaml' does not exist", "name a YAML file"), files=_remove("config.yaml")
    ),
    "invalid YAML": Case(
        ("CONFIG", "config.yaml' is not valid YAML (line 3", "correct that line"),
        files=_rewrite("config.yaml", "run:\n  name: [\n"),
    ),
    "a missing data file": Case(
        ("tasks[0].data.val", "val.jsonl' does not exist", "correct the path"), files=_remove("val.jsonl")
    ),
    "a missing column": Case(
        ("tasks[0].data.train", "train.jsonl:1", "no column 'ticket'", "text, label", "set fields.input"),
        {"tasks": [{"fields": {"input": "ticket"}}]},
    ),
    "an empty split": Case(
        ("tasks[0].data.test", "test.jsonl' holds no example", "at least one"), files=_rewrite("test.jsonl", "\n")
    ),
    "half a line": Case(
        ("tasks[0].data.val (val.jsonl:2)", "not valid JSON", "one complete JSON object on each line"),
        files=_rewrite("val.jsonl", _ticket() + _ticket("where is my courier")[:20]),
    ),
    "an example in two splits": Case(
        ("tasks[0].data", "is in both train and test", "keep it in one split only"),
        files=_repeat_a_train_ticket_in_test,
    ),
    "an unknown metric": Case(
        ("tasks[0].answer.kind", "'exactly'", "choose one of", "'exact'"),
        {"tasks": [{"answer": {"kind": "exactly"}}]},
    ),
    "an unknown schedule": Case(
        ("optimizer.schedule.kind", "'sine'", "choose one of: cosine, linear, fixed, none"),
        {"optimizer": {"schedule": {"kind": "sine"}}},
    ),
    "an unknown retrieval": Case(
        ("optimizer.direction.trajectory.by", "'luck'", "choose one of", "'relevance'"),
        {"optimizer": {"direction": {"trajectory": {"by": "luck"}}}},
    ),
    "a negative k": Case(
        ("optimizer.direction.trajectory.k", "-1", "at least 0"),
        {"optimizer": {"direction": {"trajectory": {"k": -1}}}},
    ),
    "a negative step size": Case(
        ("optimizer.schedule.initial", "-5", "above 0"), {"optimizer": {"schedule": {"initial": -5}}}
    ),
    "a negative step size in --set": Case(
        ("optimizer.schedule.final", "-5", "above 0"), options=("--set", "optimizer.schedule.final=-5")
    ),
    "an unknown option": Case(
        ("optimizer.candiates", "is not an option", "did you mean 'candidates'?"), {"optimizer": {"candiates": 4}}
    ),
    "a --set without a value": Case(("--set", "optimizer.steps", "=value"), options=("--set", "optimizer.steps")),
    "a refused key": Case(
        ("models.task.api_key_env", "HTTP 401", "OPENAI_API_KEY", "set a key"),
        env={"OPENAI_API_KEY": "canary-of-another"},
        hidden="canary-of-another",
    ),
    "an unreachable endpoint": Case(
        ("models.optimizer.base_url", "http://127.0.0.1:9/v1 cannot be reached", "correct base_url"),
        {"models": {"optimizer": {"base_url": "http://127.0.0.1:9/v1"}}},
    ),
    "an unknown model": Case(
        ("models.optimizer.model", "'opt-modle' is unknown", "choose one of: embed-model, opt-model, task-model"),
        {"models": {"optimizer": {"model": "opt-modle"}}},
    ),
    "an unknown embedding model": Case(
        ("models.embedding.model", "'nothing'", "choose one of"),
        {"models": {"embedding": {"kind": "openai", "model": "nothing"}}},
        env={"OPENAI_BASE_URL": "ENDPOINT"},
    ),
    "an unset key variable": Case(
        ("models.task.api_key_env", "MY_KEY is not set", "export MY_KEY="),
        {"models": {"task": {"api_key_env": "MY_KEY"}}},
    ),
    "a missing key file": Case(
        ("models.task.api_key_file", "nothing' cannot be read", "name a readable file"),
        {"models": {"task": {"api_key_file": "nothing"}}},
    ),
    "a password in the address": Case(
        ("models.task.base_url", "holds a user name or password", "set api_key_env instead"),
        {"models": {"task": {"base_url": f"http://user:{KEY}@127.0.0.1:9/v1"}}},
        hidden=KEY,
    ),
    "a key in the configuration": Case(
        ("models.task.api_key", "is not an option", "did you mean 'api_key_env'?"),
        {"models": {"task": {"api_key": KEY}}},
        hidden=KEY,
    ),
    "a key instead of its variable": Case(
        ("models.task.api_key_env", "is not the name of an environment variable", "write its name"),
        {"models": {"task": {"api_key_env": KEY}}},
        hidden=KEY,
    ),
    "weights in another format than GGUF": Case(
        ("models.task.gguf", "train.jsonl' is not a GGUF file", "name a .gguf file"),
        options=("--set", "models.task={kind: embedded, gguf: train.jsonl}"),
    ),
    "two tasks with one name": Case(
        ("tasks", "duplicate task name 'triage'", "task names must be unique"), {"tasks": [{}, {"prompt": "Think."}]}
    ),
    "a seed twice": Case(("run.seeds", "duplicate seed '3'", "seeds must be unique"), {"run": {"seeds": [3, 4, 3]}}),
    "no seed": Case(("run.seeds", "at least 1"), {"run": {"seeds": []}}),
    "money without a price": Case(("budget.usd", "no model has a price", "models.task.price"), {"budget": {"usd": 1}}),
    "an address of Ray Client": Case(
        ("--address", "'ray://127.0.0.1:10001'", "use local, auto or HOST:PORT"),
        options=("--address", "ray://127.0.0.1:10001"),
    ),
    "a malformed address": Case(
        ("--address", "'somewhere'", "use local, auto or HOST:PORT"), options=("--address", "somewhere")
    ),
    "no cluster at the address": Case(
        ("--address", "nothing answers at '127.0.0.1:9'", "ray start --head"), options=("--address", "127.0.0.1:9")
    ),
    "an empty folder name": Case(("--run-dir", "is empty", "name a folder"), options=("--run-dir", "")),
    "targets that are not numbers": Case(
        ("tasks[0].answer.kind", "'number' would judge", "targets wrong", "choose the kind"),
        {"tasks": [{"answer": {"kind": "number"}}]},
    ),
    "two keys in a file": Case(
        ("models.task.api_key_file", "characters that no key has", "nothing else"),
        {"models": {"task": {"api_key_file": "keys"}}},
        files=_rewrite("keys", f"{KEY}\n{KEY}\n"),
        hidden=KEY,
    ),
    "a read-only folder": Case(("--run-dir", "'/sys/gpo-run'", "name another"), options=("--run-dir", "/sys/gpo-run")),
    "a folder below a file": Case(
        ("--run-dir", "config.yaml/run' cannot be read", "name a folder"), options=("--run-dir", "config.yaml/run")
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mistake_is_one_line_with_field_value_and_remedy(
    case: Case, endpoint: SimulatedEndpoint, gpo: RunGpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(api_key=KEY)
    for split in ("train", "val", "test"):
        shutil.copy(TRIAGE / f"{split}.jsonl", tmp_path)
    config = write_config(tmp_path, endpoint.base_url, **case.changes)
    config.write_text(config.read_text(encoding="utf-8").replace(f"{TRIAGE}/", ""), encoding="utf-8")
    case.files(tmp_path)
    env = {"OPENAI_API_KEY": KEY, **case.env}
    env = {name: endpoint.base_url if value == "ENDPOINT" else value for name, value in env.items()}
    finished = gpo("run", config, *case.options, cwd=tmp_path, env=env)

    assert finished.code == 2, finished.stderr
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert not [word for word in case.words if word not in line], line
    assert not case.hidden or case.hidden not in line
    assert {record.path for record in endpoint.requests} <= {"/v1/models"}
    assert not (tmp_path / "runs").exists()


def test_an_address_beyond_loopback_needs_a_token(gpo: RunGpo, write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(
        tmp_path, "http://127.0.0.1:9/v1", models={"task": {"check": False}, "optimizer": {"check": False}}
    )
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


def test_a_run_does_not_take_the_configuration_of_a_comparison(
    gpo: RunGpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    refused = gpo("run", write_config(tmp_path, "http://127.0.0.1:9/v1", compare=["gpo"]), cwd=tmp_path)
    assert refused.code == 2
    assert "gpo compare" in refused.stderr
