from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.folder import Folder
from actors.search import SearchKey
from cluster.config.loading import validate
from cluster.config.root import RunConfig
from cluster.outputs import RunRecord
from cluster.run_folder import RunFolder, fingerprint, latest_run
from gpo.checkpoint import Checkpoint
from gpo.errors import CheckpointError, ConfigError, StorageError
from gpo.examples import Example
from gpo.prompt import Prompt
from gpo.scoring import ExactScorer
from gpo.tasks import Split, Task
from gpo.testing.samples import TRAJECTORIES

KEYS = (SearchKey("desk", 0), SearchKey("desk", 1))


def desk(target: str) -> Task:
    return Task("desk", Prompt("Which desk?"), dict.fromkeys(Split, (Example("?", (target,)),)), ExactScorer())


DATA = (desk("billing"),)
CHECKPOINT = Checkpoint(TRAJECTORIES["one step"], test={})


def config(**sections: Any) -> RunConfig:
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
    task = {"name": "desk", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}}
    return validate(
        {"models": {"task": model, "optimizer": model}, "tasks": [task], **sections}, base_dir=Path("/data")
    )


def opened(
    folder: Path, *, resume: bool = False, data: Sequence[Task] = DATA, run_id: str = "run-1", **sections: Any
) -> RunRecord:
    return RunFolder(Folder.at(str(folder))).open(config(**sections), KEYS, data, run_id=run_id, resume=resume)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that has taken one step with one seed."""
    folder = tmp_path / "run"
    opened(folder)
    RunFolder(Folder.at(str(folder))).checkpoints.save(KEYS[0], CHECKPOINT)
    return folder


def test_a_new_run_leaves_its_configuration_and_an_empty_summary(tmp_path: Path) -> None:
    record = opened(tmp_path / "run")
    assert (record.run_id, record.status, record.checkpoints) == ("run-1", "pending", {})
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["tasks"][0]["name"] == "desk"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [(row["task"], row["seed"], row["steps"], row["best"]) for row in summary["trajectories"]] == [
        ("desk", 0, 0, None),
        ("desk", 1, 0, None),
    ]


def test_a_run_goes_on_from_what_it_has(begun: Path) -> None:
    record = opened(begun, resume=True, run_id="another")
    assert record.run_id == "run-1"
    assert record.checkpoints == {KEYS[0]: CHECKPOINT}


def test_resuming_where_nothing_is_begins(tmp_path: Path) -> None:
    assert opened(tmp_path / "run", resume=True).checkpoints == {}


def test_a_run_is_not_begun_over_another(begun: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        opened(begun)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"started_at": "yesterday"}', '{"wall_s": "long"}', "\udcff"])
def test_a_damaged_summary_costs_nothing_but_the_times(begun: Path, content: str) -> None:
    (begun / "summary.json").write_bytes(content.encode(errors="surrogateescape"))
    record = opened(begun, resume=True)
    assert record.checkpoints == {KEYS[0]: CHECKPOINT}
    assert record.wall_s == 0


@pytest.mark.parametrize("content", ["", "text", "{", "a: \0", "run: 3", "tasks: []"])
def test_a_damaged_configuration_is_named(begun: Path, content: str) -> None:
    (begun / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml' is damaged") as caught:
        opened(begun, resume=True)
    assert caught.value.field == "--run-dir"


def test_a_damaged_checkpoint_is_named(begun: Path) -> None:
    path = begun / "trajectories" / "desk" / "seed-0.msgpack"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"seed-0\.msgpack: the checkpoint is damaged"):
        opened(begun, resume=True)


def test_other_settings_are_refused(begun: Path) -> None:
    with pytest.raises(ConfigError, match="has 12, not 3; resume with its own configuration") as caught:
        opened(begun, resume=True, optimizer={"steps": 3})
    assert caught.value.field == "optimizer.steps"


def test_other_data_are_refused(begun: Path) -> None:
    with pytest.raises(ConfigError, match="not those that the run") as caught:
        opened(begun, resume=True, data=(desk("technical"),))
    assert caught.value.field == "tasks[0].data"


def test_where_and_how_fast_it_runs_may_change(begun: Path) -> None:
    model = {"base_url": "http://127.0.0.1:10/v1", "model": "a-model", "max_concurrency": 3, "timeout_s": 5}
    opened(begun, resume=True, models={"task": model, "optimizer": model}, cluster={"evaluator_replicas": 2})


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "file" / "run")
    assert caught.value.field == "--run-dir"


def test_a_file_that_cannot_be_written_is_named(begun: Path) -> None:
    (begun / "report.html").unlink(missing_ok=True)
    (begun / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html cannot be written"):
        RunFolder(Folder.at(str(begun))).save(RunRecord("run-1", started_at=0.0, status="completed", keys=KEYS))
    assert json.loads((begun / "summary.json").read_text())["status"] == "completed"


def test_the_newest_run_of_a_name_is_the_one_to_resume(tmp_path: Path) -> None:
    for name in ("a-20260101-000000-0000", "a-20260102-000000-0000", "a-b-20260103-000000-0000", "a-x"):
        (tmp_path / name).mkdir()
    newest = latest_run(Folder.at(str(tmp_path)), "a")
    assert newest is not None
    assert newest.url.endswith("/a-20260102-000000-0000")
    assert latest_run(Folder.at(str(tmp_path / "nothing")), "a") is None


def test_a_fingerprint_depends_on_every_example() -> None:
    def of(*rows: tuple[str, str]) -> str:
        examples = tuple(Example(text, (target,)) for text, target in rows)
        return fingerprint(Task("t", Prompt("p"), dict.fromkeys(Split, examples), ExactScorer()))

    assert of(("a", "b"), ("c", "d")) == of(("a", "b"), ("c", "d"))
    assert (
        len({of(("a", "b"), ("c", "d")), of(("c", "d"), ("a", "b")), of(("a", "b")), of(("a", "d"), ("c", "b"))}) == 4
    )
