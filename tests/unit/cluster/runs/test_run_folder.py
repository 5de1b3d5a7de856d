from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.folder import Folder
from actors.lease import Lease, LeaseLost, Leases
from actors.search import SearchKey
from cluster.comparing.compare import ComparisonFolder
from cluster.config.loading import validate
from cluster.config.run import RunConfig
from cluster.results.run_record import RunRecord
from cluster.runs.run_folder import RunFolder, latest_run
from gpo.checkpoint import Checkpoint
from gpo.data.example import Example
from gpo.data.task import Split, Task, fingerprint
from gpo.errors import CheckpointError, ConfigError, StorageError
from gpo.evaluation.metrics import ExactScorer
from gpo.prompt import Prompt
from gpo.runtime.process import ProcessIdentity
from gpo.testing.samples import TRAJECTORIES

KEYS = (SearchKey("desk", 0), SearchKey("desk", 1))


def desk(target: str) -> Task:
    return Task("desk", Prompt("Which desk?"), dict.fromkeys(Split, (Example("?", (target,)),)), ExactScorer())


DATA = (desk("billing"),)
CHECKPOINT = Checkpoint(TRAJECTORIES["one step"], test={})


FAR_AWAY = replace(ProcessIdentity.current(), host="elsewhere", space="another/space")


def config(**sections: Any) -> RunConfig:
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
    task = {"name": "desk", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}}
    return validate(
        {"models": {"task": model, "optimizer": model}, "tasks": [task], "run": {"seeds": [0, 1]}, **sections},
        base_dir=Path("/data"),
    )


def opened(
    folder: Path | str,
    *,
    resume: bool = False,
    data: Sequence[Task] = DATA,
    run_id: str = "run-1",
    leases: Leases | None = None,
    **sections: Any,
) -> RunRecord:
    run_folder = RunFolder(Folder.at(str(folder)), leases)
    return run_folder.open(config(**sections), data, run_id=run_id, resume=resume)


@pytest.fixture
def stepped(tmp_path: Path) -> Path:
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


def test_a_resumed_run_has_its_id_and_checkpoints(stepped: Path) -> None:
    record = opened(stepped, resume=True, run_id="another")
    assert record.run_id == "run-1"
    assert record.checkpoints == {KEYS[0]: CHECKPOINT}


def test_a_new_run_in_the_folder_of_another_is_refused(stepped: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        opened(stepped)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"started_at": "yesterday"}', '{"wall_s": "long"}', "\udcff"])
def test_a_damaged_summary_loses_only_the_times(stepped: Path, content: str) -> None:
    (stepped / "summary.json").write_bytes(content.encode(errors="surrogateescape"))
    record = opened(stepped, resume=True)
    assert record.checkpoints == {KEYS[0]: CHECKPOINT}
    assert record.wall_s == 0


@pytest.mark.parametrize("resume", [True, False])
def test_checkpoints_without_their_configuration_are_refused(stepped: Path, *, resume: bool) -> None:
    (stepped / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="holds checkpoints, but there is no 'config"):
        opened(stepped, resume=resume)


@pytest.mark.parametrize("content", ["", "text", "{", "a: \0", "run: 3", "tasks: []"])
def test_a_damaged_configuration_is_named(stepped: Path, content: str) -> None:
    (stepped / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml' is damaged") as caught:
        opened(stepped, resume=True)
    assert caught.value.field == "--run-dir"


def test_a_damaged_checkpoint_is_named(stepped: Path) -> None:
    path = stepped / "trajectories" / "desk" / "seed-0.msgpack"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"seed-0\.msgpack: the checkpoint is damaged"):
        opened(stepped, resume=True)


def test_other_settings_are_refused(stepped: Path) -> None:
    with pytest.raises(ConfigError, match="has 12, not 3; resume with its own configuration") as caught:
        opened(stepped, resume=True, optimizer={"steps": 3})
    assert caught.value.field == "optimizer.steps"


def test_other_data_are_refused(stepped: Path) -> None:
    with pytest.raises(ConfigError, match="not those that the run") as caught:
        opened(stepped, resume=True, data=(desk("technical"),))
    assert caught.value.field == "tasks[0].data"


def test_options_that_do_not_affect_results_may_change(stepped: Path) -> None:
    model = {"base_url": "http://127.0.0.1:10/v1", "model": "a-model", "max_concurrency": 3, "timeout_s": 5}
    opened(stepped, resume=True, models={"task": model, "optimizer": model}, cluster={"evaluator_replicas": 2})


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "file" / "run")
    assert caught.value.field == "--run-dir"


def test_a_file_that_cannot_be_written_is_named(stepped: Path) -> None:
    (stepped / "report.html").unlink(missing_ok=True)
    (stepped / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html cannot be written"):
        RunFolder(Folder.at(str(stepped))).save(RunRecord("run-1", started_at=0.0, status="completed", keys=KEYS))
    assert json.loads((stepped / "summary.json").read_text())["status"] == "completed"


def test_a_second_process_is_refused_until_the_first_ends(new_folder: Callable[[], str]) -> None:
    folder = new_folder()
    with Leases() as mine, Leases() as others:
        opened(folder, leases=mine)
        with pytest.raises(ConfigError, match=rf"is in use by process {os.getpid()} on .*; wait for its end") as caught:
            opened(folder, resume=True, leases=others)
        assert caught.value.field == "--run-dir"
        opened(folder, resume=True, leases=mine)
    with Leases() as later:
        assert opened(folder, resume=True, leases=later).run_id == "run-1"


def test_the_lease_of_a_lost_machine_is_awaited(
    stepped: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cluster.runs.run_folder._PAUSE_S", 0.01)
    monkeypatch.setattr("actors.lease.TERM_S", 0.5)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(ProcessIdentity, "current", lambda: FAR_AWAY)
        Lease.take(Folder(str(stepped)))
    with Leases() as leases:
        opened(stepped, resume=True, leases=leases)
        leases.require_held()
    assert "on elsewhere, which took its lease at" in caplog.text


def test_a_lease_that_another_machine_renews_is_refused(stepped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(ProcessIdentity, "current", lambda: FAR_AWAY)
        lease = Lease.take(Folder(str(stepped)))
    monkeypatch.setattr("cluster.runs.run_folder.time.sleep", lambda _: lease.renew())
    with (
        Leases() as leases,
        pytest.raises(ConfigError, match=r"on elsewhere, which took .* wait for its end"),
    ):
        opened(stepped, resume=True, leases=leases)


def test_a_refused_run_changes_nothing(stepped: Path) -> None:
    before = sorted(stepped.rglob("*"))
    with Leases() as leases:
        with pytest.raises(ConfigError, match="holds a run already"):
            opened(stepped, leases=leases)
        with pytest.raises(ConfigError, match="resume with its own configuration"):
            opened(stepped, resume=True, optimizer={"steps": 3}, leases=leases)
    assert sorted(stepped.rglob("*")) == before


def test_nothing_is_written_after_a_takeover(new_folder: Callable[[], str]) -> None:
    folder = Folder.at(new_folder())
    with Leases() as leases:
        record = opened(folder.url, leases=leases)
        run_folder = RunFolder(folder, leases)
        (folder / ".lease").create("000002.json", (folder / ".lease").read("000001.json") or b"")
        before = {name: folder.read(name) for name in folder.names() if "." in name[1:]}
        record.status = "completed"
        for action in (
            lambda: run_folder.save(record),
            lambda: run_folder.checkpoints.save(KEYS[0], CHECKPOINT),
            lambda: run_folder.write_summary(run_folder.summary(record)),
        ):
            with pytest.raises(LeaseLost, match="was taken over"):
                action()
        if folder.local:
            with pytest.raises(LeaseLost):
                run_folder.append_step(record, KEYS[0], CHECKPOINT.trajectory.steps[0])
        assert {name: folder.read(name) for name in folder.names() if "." in name[1:]} == before
        assert run_folder.checkpoints.load(KEYS[0]) is None


def test_a_comparison_holds_the_leases_of_all_its_runs(new_folder: Callable[[], str]) -> None:
    folder, methods = Folder.at(new_folder()), {"one": config(), "two": config()}
    with Leases() as mine, Leases() as others:
        ComparisonFolder(folder, mine).open(methods, DATA, run_id="run-1", resume=False)
        with pytest.raises(ConfigError, match="is in use by process"):
            ComparisonFolder(folder, others).open(methods, DATA, run_id="run-2", resume=True)
        with pytest.raises(ConfigError, match="two' is in use by process"):
            opened((folder / "two").url, resume=True, leases=others)
    with Leases() as later:
        resumed = ComparisonFolder(folder, later).open(methods, DATA, run_id="run-2", resume=True)
    assert resumed.run_id == "run-1"


def test_a_store_that_cannot_be_reached_is_refused(stopped_store: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*Could not connect to the endpoint") as caught:
        opened(stopped_store)
    assert caught.value.field == "--run-dir"


def test_a_missing_storage_package_is_named() -> None:
    with pytest.raises(ConfigError, match=r"gs://bucket/run' cannot be read .*gcsfs.*; install that package"):
        opened("gs://bucket/run")


def test_the_latest_run_of_a_name_is_found(tmp_path: Path) -> None:
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


def test_a_fingerprint_depends_on_the_columns_of_a_template() -> None:
    def of(**texts: str) -> str:
        example = Example("a", ("b",), tuple(texts.items()))
        return fingerprint(Task("t", Prompt("p"), dict.fromkeys(Split, (example,)), ExactScorer()))

    assert of(x="1") == of(x="1")
    assert len({of(), of(x="1"), of(x="2"), of(y="1"), of(x="1", y="1")}) == 5
