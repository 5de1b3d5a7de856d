"""A sweep from its folder to its results: what ``gpo sweep`` does once everything is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console

from cluster.session.session import Services, Session
from cluster.sweep.folder import SweepFolder
from cluster.sweep.loading import SweepConfig
from cluster.sweep.progress import SweepProgress, SweepView, sweep_view
from cluster.sweep.report import sweep_report
from cluster.sweep.results import SweepRecord, save_sweep
from cluster.sweep.session import SweepSession
from cluster.sweep.storage import open_storage
from cluster.sweep.study import SharedStudy
from cluster.tracking.tracking import tracked_sweep


def carry_out(config: SweepConfig, place: SweepFolder, address: str, console: Console) -> dict[str, Any]:
    """Work on the sweep until it is over, out of budget or interrupted; the content of ``sweep.json``.

    Raises:
        ConfigError: the storage cannot be used, or holds another sweep; no cluster at the address.
        GPOError: the sweep could not go on; what is done is saved.
    """
    storage = open_storage(config.section.storage, place.folder)
    study = SharedStudy(config, storage, place.of_trial)
    over = [
        (trial.number, trial.state.name.lower(), trial.values[0] if trial.values else None)
        for trial in study.trials()
        if trial.state.is_finished()
    ]
    tracking = tracked_sweep(config.base.tracking, place.sweep_id, study.objectives, place.folder)
    with sweep_view(console, SweepProgress(config.section.trials, over)) as view, tracking as tracked:
        return _sit(config, place, study, address, view, tracked)


def _sit(
    config: SweepConfig,
    place: SweepFolder,
    study: SharedStudy,
    address: str,
    view: SweepView,
    tracked: Callable[[Sequence[FrozenTrial]], None],
) -> dict[str, Any]:
    def record(sitting: SweepSession) -> SweepRecord:
        ending = sitting.ending
        return SweepRecord(
            place.sweep_id, ending.status, place.started_at, sitting.wall_s, sitting.spent, ending.ended_by
        )

    def save(sitting: SweepSession) -> None:
        save_sweep(config, study, record(sitting), place.folder, report=None)
        tracked(study.trials())

    sitting = SweepSession(config, study, place.folder, earlier_s=place.wall_s, view=view, saved=save)
    actors = config.section.max_parallel_trials * config.base.num_actors + 1  # which stands ready
    name = f"gpo-{place.sweep_id}-{study.processes.me}"
    with Session(
        config.together,
        [*config.tasks, *config.holdout_tasks],
        name=name,
        address=address,
        view=view,
        num_actors=actors,
    ) as standing:

        def services() -> Services:
            return standing.services

        try:
            sitting.execute(services)
        except KeyboardInterrupt:
            pass  # its ending says so
        finally:
            view.status("Writing the report")
            document = save_sweep(config, study, record(sitting), place.folder, report=None)
            page = sweep_report(study.study, document)
            document = save_sweep(config, study, record(sitting), place.folder, report=page)
            tracked(study.trials())
    return document
