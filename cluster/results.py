"""What a run has come to, for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from actors.folder import Folder
from cluster.outputs import RunRecord, scored_prompt
from cluster.progress import percent

_FILES = {
    "report.html": "report",
    "best_prompts.json": "best prompts",
    "summary.json": "summary",
    "steps.jsonl": "every candidate",
}


def results_table(record: RunRecord) -> Table:
    """Initial → best of every trajectory, in percent, with the best prompt."""
    table = Table(title=f"{record.run_id}: {record.status}", title_justify="left", title_style="bold")
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
    return table


def written_files(folder: Folder) -> list[str]:
    """The paths of the results, each with what it holds."""
    return [f"{what + ':':<16} {folder.path(name)}" for name, what in _FILES.items()]
