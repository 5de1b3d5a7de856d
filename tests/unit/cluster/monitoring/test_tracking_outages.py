from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState, create_trial

from actors.folder import Folder
from cluster.config.observability import MlflowConfig
from cluster.monitoring.mlflow import MlflowStore
from cluster.monitoring.tracking import _RunWriter, _SweepWriter
from tests.unit.cluster.monitoring.test_tracking import database, history, mlflow, record_of, rows, run_config

__all__ = ["database", "mlflow"]

_WRITES = ("create_run", "update_run", "log_batch", "set_terminated")
_SERIES = ("val", "val_best", "candidates", "step_size_words", "objective_val", "calls", "tokens", "cost_usd")


class Away:
    """A server that goes away after some writes: the last one reaches it, but gets no answer."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._left = 10**6
        for name in _WRITES:
            patch.setattr(MlflowClient, name, self._cut(getattr(MlflowClient, name)))

    def after(self, writes: int) -> None:
        self._left = writes

    def back(self) -> bool:
        """Let the server answer again; returns whether it was away."""
        was_away, self._left = self._left <= 0, 10**6
        return was_away

    def _cut(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def cut(*args: Any, **options: Any) -> Any:
            self._left -= 1
            answer = write(*args, **options) if self._left >= 0 else None
            if self._left <= 0:
                raise ConnectionError("away")
            return answer

        return cut


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    # Small batches stand for thousands of points: every write takes several batches.
    monkeypatch.setattr("cluster.monitoring.mlflow._MOST_METRICS", 5)
    monkeypatch.setattr("cluster.monitoring.mlflow._MOST_PARAMS", 20)
    return Away(monkeypatch)


Write = Callable[[MlflowStore, bool], None]


def _run(mlflow: MlflowConfig, tmp_path: Path) -> Write:
    record = record_of(2, status="completed")
    return _RunWriter(run_config(mlflow, tmp_path), record, Folder.at(str(tmp_path))).write


_TRIALS = [
    create_trial(
        state=TrialState.COMPLETE, value=0.7, intermediate_values={1: 0.5, 2: 0.7}, user_attrs={"spent": [10, 20, 0.5]}
    ),
    create_trial(state=TrialState.FAIL, user_attrs={"spent": [1, 2, 0.25]}),
]
for _number, _trial in enumerate(_TRIALS):
    _trial.number, _trial.params = _number, {"optimizer.candidates": 4}


def _sweep(mlflow: MlflowConfig, tmp_path: Path) -> Write:
    pages = _SweepWriter("s", ["val"], Folder.at(str(tmp_path)))
    pages.take(_TRIALS)
    return pages.write


def _written(mlflow: MlflowConfig) -> dict[str, Any]:
    return {
        name: (
            run.info.status,
            run.data.params,
            run.data.metrics,
            {of: history(mlflow, run, of) for of in _SERIES} if "mlflow.parentRunId" in run.data.tags else None,
        )
        for name, run in rows(mlflow).items()
    }


@pytest.mark.parametrize(("made", "num_runs"), [(_run, 2), (_sweep, 3)])
def test_a_server_that_was_away_at_any_time_gets_everything_once_in_the_end(
    made: Callable[[MlflowConfig, Path], Write],
    num_runs: int,
    mlflow: MlflowConfig,
    away: Away,
    tmp_path: Path,
) -> None:
    made(mlflow, tmp_path)(MlflowStore(mlflow), True)
    undisturbed = _written(mlflow)
    assert len(undisturbed) == num_runs
    assert all(status == "FINISHED" or name == "trial 1" for name, (status, *_) in undisturbed.items())
    for writes in range(1, 100):
        cut = mlflow.model_copy(update={"experiment": f"{mlflow.experiment}, away after {writes}"})
        write, store = made(cut, tmp_path), MlflowStore(cut)
        away.after(writes)
        with suppress(ConnectionError):
            write(store, True)
        if not away.back():
            break
        if writes % 2:  # the process that continues may be another one
            write = made(cut, tmp_path)
        write(store, True)
        assert _written(cut) == undisturbed, f"away after {writes}"
    assert writes > num_runs * 3
