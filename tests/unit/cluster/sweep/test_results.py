from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from actors.folder import Folder
from cluster.config.loading import load_config
from cluster.config.run import AdaptiveScoringConfig
from cluster.sweep.folder import SweepFolder
from cluster.sweep.plan import planned_sweep
from cluster.sweep.results import SweepRecord, save_sweep, sweep_table
from gpo.errors import ConfigError
from gpo.limits.messages import Spent
from tests.unit.cluster.sweep.test_study import BAD, BY, GOOD, INITIAL, Process, pruned_at, sweep_file

RECORD = SweepRecord("tuned-sweep-1", "completed", 0.0, 12.5, Spent(100, 2000, 0.25))


def saved(folder: Path, **sweep: Any) -> tuple[Process, dict[str, Any]]:
    process = Process(folder, trials=6, **sweep)
    several = len(process.config.section.objectives) > 1
    for index in range(5):
        if several:
            claim = process.claim()
            process.study.tell(claim, "complete", [0.5 + 0.05 * index, 1000.0 + index], {"spent": [9, 8, 7.0]})
        else:
            pruned_at(process, [[value + 0.01 * index for value in values] for values in (BAD if index == 3 else GOOD)])
    sweep_folder = SweepFolder(Folder.at(str(folder)), "tuned-sweep-1", 0.0, 0.0)
    return process, save_sweep(process.config, process.study, RECORD, sweep_folder, with_report=True)


def test_the_document_covers_every_trial(tmp_path: Path) -> None:
    _, document = saved(tmp_path, pruner={"kind": "median", "startup_trials": 2})
    counts = document["trials"]
    assert (counts["wanted"], counts["complete"], counts["pruned"], counts["waiting"]) == (6, 4, 1, 1)
    assert document["best"]["number"] == 4
    assert document["best"]["val"] == pytest.approx(0.94)
    assert [step["step"] for step in document["best"]["steps"]] == list(range(1, 10))
    assert document["all"][0]["is_paper"]
    assert set(document["importance"] or {INITIAL: 1, BY: 0}) == {INITIAL, BY}
    assert document["study"] == {"name": "tuned", "storage": str(tmp_path / "study.journal")}
    assert "the paper's setting" in str([str(cell) for cell in sweep_table(document).columns[-1].cells])


def test_gpo_run_accepts_the_best_configuration(tmp_path: Path) -> None:
    process, document = saved(tmp_path, pruner={"kind": "none"})
    config = load_config(tmp_path / "best_config.yaml")
    assert config == process.config.space.config(document["best"]["params"])
    assert config.optimizer.schedule.initial == document["best"]["params"][INITIAL]


@pytest.mark.parametrize(
    ("sweep", "titles"),
    [
        ({"pruner": {"kind": "none"}}, ["Optimization history", "Parallel coordinates", "Intermediate values"]),
        ({"objectives": ["val", "tokens"]}, ["Optimization history", "Parallel coordinates", "Pareto front"]),
    ],
)
def test_the_report_holds_its_plots_and_needs_no_network(
    sweep: dict[str, Any], titles: list[str], tmp_path: Path
) -> None:
    saved(tmp_path, **sweep)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for title in (*titles, "Parameter importance"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("Plotly.newPlot(") >= 4
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    process, _ = saved(tmp_path, pruner={"kind": "none"})
    folder = Folder.at(str(tmp_path))
    first = SweepFolder.open(folder, process.config, sweep_id="new", resume=False, began=100.0)
    assert (first.sweep_id, first.began) == ("tuned-sweep-1", 100.0 - 12.5)
    with pytest.raises(ConfigError, match="--resume"):
        SweepFolder.open(folder, process.config, sweep_id="new", resume=False)
    assert SweepFolder.open(folder, process.config, sweep_id="new", resume=True).sweep_id == "tuned-sweep-1"
    folder.write("summary.json", b"{}")
    with pytest.raises(ConfigError, match="holds a run"):
        SweepFolder.open(folder, process.config, sweep_id="new", resume=True)


def test_the_plan_takes_the_most_expensive_corner_for_every_trial(tmp_path: Path) -> None:
    from cluster.sweep.config import load_sweep

    space = {"optimizer.candidates": {"choices": [2, 4]}, INITIAL: {"low": 5, "high": 9}}
    config = load_sweep(sweep_file(tmp_path, trials=3, space=space), ())
    (plan,) = planned_sweep(config)
    assert plan.trajectories == 3
    assert plan.by_role["task"].calls == 3 * AdaptiveScoringConfig().most_answers(40, num_steps=9, num_candidates=4)
    assert plan.by_role["optimizer"].calls == 3 * 9 * 4
