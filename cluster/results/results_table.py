"""The results of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from actors.folder import Folder
from cluster.display.console import FittingTable
from cluster.display.progress import percent, percent_range
from cluster.results.averages import averages
from cluster.results.differences import difference_lines
from cluster.results.outputs import best_prompt, samples, scored_prompt
from cluster.results.run_record import RunRecord
from gpo.intervals import LEVEL

_FILES = {
    "report.html": "report",
    "best_prompts.json": "best prompts",
    "summary.json": "summary",
    "steps.jsonl": "every candidate",
}
_NAMED = 8
"""More trajectories than these are counted instead of named."""

_CAPTION = (
    f"Below the scores: {100 * LEVEL:.0f} % intervals for the best prompts on new examples, and numbers of examples. "
    "The best prompts were chosen by val, so val is too high on average; the intervals of single trajectories allow "
    "for that. The fair number is test."
)


def results_table(record: RunRecord) -> FittingTable:
    """Initial and best scores of every trajectory in percent, its best prompt, and the means over families of tasks."""
    table = FittingTable(
        title=Text(f"{record.run_id}: {record.status}"),
        title_justify="left",
        title_style="bold",
        caption=_CAPTION if record.checkpoints else None,
        caption_justify="left",
        caption_style="dim",
    )
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
        initial, best = scored_prompt(trajectory.initial, checkpoint), best_prompt(checkpoint)
        scores = [
            _change(initial[split], best[split], best[f"{split}_interval"], best[f"{split}_scored"])
            for split in ("val", "test")
        ]
        prompt = Text(best["prompt"]) if error is None else outcome
        table.add_row(Text(key.task), str(key.seed), str(len(trajectory.steps)), *scores, prompt)
    _add_averages(table, record)
    return table


def _add_averages(table: FittingTable, record: RunRecord) -> None:
    table.add_section()
    for average in averages(record.families, record.checkpoints):
        name = f"{average['family']} ({average['tasks']})"
        scores = []
        for split in ("val", "test"):
            initial, best = (average[which][split] or {} for which in ("initial", "best"))
            scores.append(_change(initial.get("mean"), best.get("mean"), best.get("interval")))
        table.add_row(Text(name, style="bold"), "all", "", *scores, "")


def _change(
    initial: float | None, best: float | None, ends: Mapping[str, float] | None, scored: int | None = None
) -> str:
    """``16.7 → 91.7``, and on a second line the best prompt's interval and number of scored examples."""
    means = f"{percent(initial)} → {percent(best)}"
    if not ends:
        return means
    examples = "" if scored is None else f", n={scored:,}"
    return f"{means}\n{percent_range((ends['low'], ends['high']))}{examples}"


def acceptance_line(record: RunRecord) -> str | None:
    """The share of new prompts within the step size; ``None`` where no step had one."""
    counts = samples([step for checkpoint in record.checkpoints.values() for step in checkpoint.trajectory.steps])
    rate = counts["acceptance_rate"]
    if rate is None:
        return None
    rejected = f"; {counts['rejected']} beyond it were rejected" if counts["rejected"] else ""
    return f"{percent(rate)} % of the new prompts were within the step size{rejected}."


def scoring_line(record: RunRecord) -> str | None:
    """How many answers on ``val`` the prompts gave, and how many full scoring needs; ``None`` if none were left out."""
    scores = [candidate.score for one in record.checkpoints.values() for candidate in one.trajectory.history]
    whole = sum(score.num_examples for score in scores)
    left_out = sum(score.partial.num_left_out for score in scores if score.partial)
    if not left_out:
        return None
    return (
        f"Scoring: {whole - left_out:,} answers on val; scoring every prompt on all of val would have taken {whole:,}."
    )


def stopping_lines(record: RunRecord) -> list[str]:
    """A line for each reason for which trajectories stopped early."""
    stopped: dict[str, list[str]] = {}
    for key in record.keys:
        if reason := record.stopped_by(key):
            stopped.setdefault(reason, []).append(str(key))
    return [
        f"Stopped early ({reason}): {', '.join(keys) if len(keys) <= _NAMED else f'{len(keys)} trajectories'}."
        for reason, keys in stopped.items()
    ]


def unscored_line(record: RunRecord) -> str | None:
    """How many answers have no score, and how many candidates were dropped for that; ``None`` where none were."""
    scores = [
        score
        for checkpoint in record.checkpoints.values()
        for score in (
            *(candidate.score for candidate in checkpoint.trajectory.history),
            *(test.score for test in checkpoint.test.values()),
        )
    ]
    missing, whole = sum(score.num_unscored for score in scores), sum(score.num_examples for score in scores)
    said = []
    if missing:
        said.append(
            f"{missing:,} of {whole:,} answers have no score, since their calls failed; the means leave them out."
        )
    steps = [step for checkpoint in record.checkpoints.values() for step in checkpoint.trajectory.steps]
    if dropped := sum(len(step.unscored) for step in steps):
        said.append(f"Candidates dropped because they could not be scored: {dropped} (in steps.jsonl, under unscored).")
    return " ".join(said) or None


def closing_lines(record: RunRecord) -> list[str]:
    """What is said below the table at the end of a run: differences, early ends, counts of answers."""
    about = (*difference_lines(record), *stopping_lines(record), scoring_line(record), acceptance_line(record))
    return [line for line in (*about, unscored_line(record)) if line]


def written_files(folder: Folder) -> list[str]:
    """A line for each file of results: its content and its path."""
    return [f"{what + ':':<16} {folder.path(name)}" for name, what in _FILES.items()]
