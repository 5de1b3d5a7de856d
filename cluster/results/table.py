"""What a run has come to, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from actors.folder import Folder
from cluster.display.progress import percent
from cluster.results.averages import averages
from cluster.results.outputs import samples, scored_prompt
from cluster.results.run_record import RunRecord

_FILES = {
    "report.html": "report",
    "best_prompts.json": "best prompts",
    "summary.json": "summary",
    "steps.jsonl": "every candidate",
}


def results_table(record: RunRecord) -> Table:
    """Initial → best of every trajectory, in percent, with the best prompt; below, the means over families of tasks."""
    table = Table(title=Text(f"{record.run_id}: {record.status}"), title_justify="left", title_style="bold")
    table.add_column("Task", overflow="fold")
    table.add_column("Seed", justify="right")
    table.add_column("Steps", justify="right")
    table.add_column("val", justify="right", no_wrap=True)
    table.add_column("test", justify="right", no_wrap=True)
    table.add_column("Best prompt", overflow="fold")
    for key in record.keys:
        checkpoint, error = record.checkpoints.get(key), record.errors.get(key)
        outcome = Text(error or "", style="red")
        if checkpoint is None:
            table.add_row(Text(key.task), str(key.seed), "0", "–", "–", outcome)
            continue
        trajectory = checkpoint.trajectory
        initial, best = (scored_prompt(one, checkpoint) for one in (trajectory.initial, trajectory.best))
        scores = [f"{percent(initial[split])} → {percent(best[split])}" for split in ("val", "test")]
        prompt = Text(best["prompt"]) if error is None else outcome
        table.add_row(Text(key.task), str(key.seed), str(len(trajectory.steps)), *scores, prompt)
    _add_averages(table, record)
    return table


def _add_averages(table: Table, record: RunRecord) -> None:
    table.add_section()
    for average in averages(record.families, record.checkpoints):
        name = f"{average['family']} ({average['tasks']})"
        scores = [f"{_mean(average['initial'][split])} → {_mean(average['best'][split])}" for split in ("val", "test")]
        error = (average["best"]["test"] or {}).get("stderr")
        note = f"test ± {percent(error)}: standard error over seeds" if error is not None else ""
        table.add_row(Text(name, style="bold"), "all", "", *scores, Text(note, style="dim"))


def _mean(known: Mapping[str, float | None] | None) -> str:
    return percent(known["mean"] if known else None)


def acceptance_line(record: RunRecord) -> str | None:
    """How many of the new prompts kept to the step size; ``None`` where nothing bounded them."""
    counts = samples([step for checkpoint in record.checkpoints.values() for step in checkpoint.trajectory.steps])
    rate = counts["acceptance_rate"]
    if rate is None:
        return None
    anew = f"; {counts['rejected']} beyond it were not taken" if counts["rejected"] else ""
    return f"{percent(rate)} % of the new prompts kept to the step size{anew}."


def unscored_line(record: RunRecord) -> str | None:
    """How many verdicts are missing from the scores; ``None`` where none is."""
    scores = [
        score
        for checkpoint in record.checkpoints.values()
        for score in (
            *(candidate.score for candidate in checkpoint.trajectory.history),
            *(test.score for test in checkpoint.test.values()),
        )
    ]
    missing, whole = sum(score.num_unscored for score in scores), sum(score.num_examples for score in scores)
    if not missing:
        return None
    return f"{missing:,} of {whole:,} answers stayed unscored: their calls failed for good, and no mean counts them."


def written_files(folder: Folder) -> list[str]:
    """The paths of the results, each with what it holds."""
    return [f"{what + ':':<16} {folder.path(name)}" for name, what in _FILES.items()]
