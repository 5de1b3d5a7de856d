from __future__ import annotations

from dataclasses import replace

import pytest

from actors.metrics.counts import Counts
from actors.search import Phase, SearchKey, Update
from cluster.config.run import BudgetConfig
from cluster.display.progress import Progress, View
from cluster.monitoring.metrics_view import MetricsView
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.evaluation.evaluator import Evaluation
from gpo.limits.messages import Spent
from gpo.models.protocol import Usage
from gpo.score import Score
from gpo.strategies.stopping import StoppingRule
from gpo.testing.samples import TRAJECTORIES, candidate, dropped, trajectory
from gpo.trajectory import Samples, Trajectory

KEY, OTHER = SearchKey("triage", 0), SearchKey("triage", 1)


class RecordingView:
    """A view that records what it was shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __enter__(self) -> RecordingView:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def status(self, text: str) -> None:
        self.lines.append(text)

    def begin(self, progress: Progress) -> None:
        self.lines.append("begin")

    def show(self, update: Update) -> None:
        self.lines.append(str(update.phase))

    def tick(self) -> None:
        self.lines.append("tick")


class Counted:
    """A view of a run, and what it counted."""

    def __init__(self, **budget: float) -> None:
        self.shown, self.record = RecordingView(), RunRecord("r", 0.0, keys=(KEY, OTHER))
        view: View = self.shown
        self._counts = Counts()
        self.view = MetricsView(view, self._counts, self.record, BudgetConfig(**budget))  # type: ignore[arg-type]

    def begin(self, **checkpoints: Trajectory) -> None:
        self.record.checkpoints = {SearchKey(task, 0): Checkpoint(one, {}) for task, one in checkpoints.items()}
        self.view.begin(Progress({KEY: 3, OTHER: 3}))

    def news(self, search: Trajectory, phase: Phase = Phase.PROPOSING) -> None:
        self.record.checkpoints[KEY] = Checkpoint(search, {})
        self.view.show(Update(KEY, phase, checkpoint=self.record.checkpoints[KEY]))

    def __getitem__(self, row: str) -> float:
        name, *labels = row.split()
        return self._counts.snapshot()[f"gpo_{name}", ("r", *labels)][0]


def test_each_step_is_counted_once_however_often_it_is_reported() -> None:
    counted = Counted()
    counted.begin()
    assert counted["steps_total triage 0"] == 0
    assert counted["trajectory_steps_planned triage 1"] == 3
    search = TRAJECTORIES["several steps, with ties"]
    for number in (1, 2, 2, 3, 3):  # a restarted actor reports its last checkpoint again
        counted.news(replace(search, steps=search.steps[:number]))
    assert counted["steps_total triage 0"] == 3
    assert counted["samples_total triage scored"] == 6
    assert counted["examples_total triage scored"] == 6
    assert counted["trajectory_score_ratio triage 0 initial"] == 0.5
    assert counted["trajectory_score_ratio triage 0 best"] == 0.75
    assert counted["trajectory_steps triage 0"] == 3
    assert counted["trajectory_step_size_words triage 0"] == 10
    assert counted["trajectory_steps_since_improvement triage 0"] == 1
    assert counted.shown.lines == ["begin", *["proposing"] * 5]


def test_the_planned_steps_of_a_trajectory_that_stopped_early_are_those_it_took() -> None:
    counted = Counted()
    counted.record.stopping = StoppingRule(patience=1)
    counted.begin()
    counted.news(trajectory(candidate("A", 0.9), [candidate("B", 0.1)]))
    assert counted["trajectory_steps_planned triage 0"] == counted["trajectory_steps triage 0"] == 1
    assert counted["trajectory_steps_planned triage 1"] == 3


def test_a_resumed_run_counts_new_steps_and_its_gauges_include_all_steps() -> None:
    search = TRAJECTORIES["several steps, with ties"]
    counted = Counted()
    counted.begin(triage=replace(search, steps=search.steps[:2]))
    assert counted["steps_total triage 0"] == 0
    assert counted["trajectory_steps triage 0"] == 2
    counted.news(search)
    assert counted["steps_total triage 0"] == 1
    assert counted["trajectory_steps triage 0"] == 3


def test_samples_and_examples_are_counted_by_outcome() -> None:
    search = trajectory(candidate("A"), [candidate("B", 1.0, None), dropped("C", 0.3), candidate("D", 0.0, 1.0)])
    samples = Samples(num_malformed=1, num_rejected=2, num_repeated=3, num_failed=4)
    search = replace(search, steps=(replace(search.steps[0], samples=samples),))
    counted = Counted()
    counted.begin()
    counted.news(search)
    fates = {"scored": 2, "dropped": 1, "malformed": 1, "rejected": 2, "repeated": 3, "failed": 4}
    assert {fate: counted[f"samples_total triage {fate}"] for fate in fates} == fates
    # Examples that a dropped candidate was not evaluated on count as neither.
    assert (counted["examples_total triage scored"], counted["examples_total triage unscored"]) == (3, 1)


def test_steps_since_improvement_count_from_the_start_without_one() -> None:
    counted = Counted()
    counted.begin()
    counted.news(trajectory(candidate("A", 0.9), [candidate("B", 0.1)], [candidate("C", 0.2)]))
    assert counted["trajectory_steps_since_improvement triage 0"] == 2
    assert counted["trajectory_score_ratio triage 0 current"] == 0.2


def test_phases_the_budget_left_and_the_end_of_a_run_are_exported() -> None:
    counted = Counted(calls=200, usd=2.0)
    counted.begin()
    assert counted["run_active"] == 1
    counted.view.show(Update(KEY, Phase.DONE))
    counted.view.show(Update(OTHER, Phase.DONE, error="TrajectoryLost: gone"))
    assert (counted["trajectories done"], counted["trajectories failed"]) == (1, 1)
    counted.record.reported = Spent(calls=150, tokens=9, usd=3.0)
    counted.view.tick()
    assert (counted["budget_left_ratio calls"], counted["budget_left_ratio usd"]) == (0.25, 0.0)
    with pytest.raises(KeyError):
        counted["budget_left_ratio tokens"]
    counted.view.end()
    assert counted["run_active"] == 0


def test_the_test_scores_of_initial_and_best_prompt_are_exported() -> None:
    search, counted = TRAJECTORIES["one step"], Counted()
    counted.begin()
    tested = {
        search.initial.prompt.id: Evaluation(Score((0.25,)), Usage()),
        search.best.prompt.id: Evaluation(Score((0.75,)), Usage()),
    }
    counted.view.show(Update(KEY, Phase.DONE, checkpoint=Checkpoint(search, tested)))
    assert counted["trajectory_test_score_ratio triage 0 initial"] == 0.25
    assert counted["trajectory_test_score_ratio triage 0 best"] == 0.75
