"""The files of results in a run's folder, made from its record. Their keys and meanings are a public contract."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from actors.search import SearchKey
from cluster.results.averages import averages
from cluster.results.differences import difference_on_test
from cluster.results.intervals import interval_document, rounded, score_interval
from cluster.results.run_record import RunRecord, by_role
from cluster.results.warnings import run_warnings
from gpo.checkpoint import Checkpoint
from gpo.prompt import parts_of
from gpo.scoring.generalization import expected_of_best
from gpo.trajectory import Candidate, Step

Described = Callable[[SearchKey, Checkpoint], dict[str, Any]]


def summary(record: RunRecord, iso: Mapping[str, str | None], best: Described | None = None) -> dict[str, Any]:
    """The content of ``summary.json``.

    Args:
        iso: ``started_at`` and ``finished_at`` as ISO 8601 times.
        best: describes a trajectory's best prompt; ``best_prompt`` by default.
    """
    return {
        "run_id": record.run_id,
        "status": record.status,
        "started_at": iso["started_at"],
        "finished_at": iso["finished_at"],
        "wall_s": round(record.wall_s, 3),
        "spent": asdict(record.spent),
        "ended_by": record.ended_by or None,
        "trajectories": [_trajectory(record, key, best) for key in record.keys],
        "is_tested": record.is_tested,
        "averages": averages(record.families, record.checkpoints),
        "llm": {role: asdict(usage) for role, usage in record.usage_by_role().items()},
        "warnings": run_warnings(record),
    }


def _trajectory(record: RunRecord, key: SearchKey, best: Described | None) -> dict[str, Any]:
    checkpoint, error = record.checkpoints.get(key), record.errors.get(key)
    row: dict[str, Any] = {
        "task": key.task,
        "seed": key.seed,
        "steps": 0,
        "stopped_by": record.stopped_by(key),
        "initial": None,
        "best": None,
        "test_difference": None,
        "samples": None,
        "error": error,
    }
    if checkpoint is not None:
        trajectory = checkpoint.trajectory
        row["steps"] = len(trajectory.steps)
        row["initial"] = scored_prompt(trajectory.initial, checkpoint)
        row["best"] = best(key, checkpoint) if best else best_prompt(checkpoint)
        row["test_difference"] = difference_on_test(checkpoint)
        row["samples"] = samples(trajectory.steps)
    return row


def samples(steps: Sequence[Step]) -> dict[str, Any]:
    """Counts of the replies that were sampled for new prompts, by outcome.

    ``acceptance_rate`` is the share of new prompts within the step size; prompts that were rejected and sampled again
    count too. Null where no step had a step size, or no prompt was new.
    """
    bounded = [
        (candidate.edit_distance, step.step_size)
        for step in steps
        for candidate in step.candidates
        if step.step_size is not None
    ]
    rejected = sum(step.samples.num_rejected for step in steps)
    kept = sum(distance <= bound for distance, bound in bounded)
    judged = len(bounded) + rejected
    return {
        "candidates": sum(len(step.candidates) for step in steps),
        "dropped": sum(candidate.is_dropped for step in steps for candidate in step.candidates),
        "malformed": sum(step.samples.num_malformed for step in steps),
        "rejected": rejected,
        "repeated": sum(step.samples.num_repeated for step in steps),
        "failed": sum(step.samples.num_failed for step in steps),
        "broken": dict(Counter(rule for step in steps for rule in step.samples.broken)),
        "unscored": sum(len(step.unscored) for step in steps),
        "acceptance_rate": rounded(kept / judged) if judged else None,
    }


def scored_prompt(candidate: Candidate, checkpoint: Checkpoint) -> dict[str, Any]:
    """A prompt with its mean scores, their intervals, and the numbers of scored examples.

    The values for ``test`` are null until the prompt is scored on it.
    """
    test = checkpoint.test.get(candidate.prompt.id)
    return {
        "prompt": candidate.prompt.text,
        "val": rounded(candidate.score.mean),
        "val_interval": score_interval(candidate.score),
        "val_scored": len(candidate.score.scored),
        "test": rounded(test.score.mean) if test else None,
        "test_interval": score_interval(test.score) if test else None,
        "test_scored": len(test.score.scored) if test else None,
    }


def best_prompt(checkpoint: Checkpoint) -> dict[str, Any]:
    """The best prompt, as in ``scored_prompt``; but the interval for ``val`` allows for the choice of the prompt.

    ``val_expected`` is an estimate of the mean on new examples that allows for it, too.
    """
    known = scored_prompt(checkpoint.trajectory.best, checkpoint)
    expected = expected_of_best(checkpoint.trajectory)
    known["val_interval"] = interval_document((expected.low, expected.high))
    return {**known, "val_expected": rounded(expected.mean)}


def best_prompts(record: RunRecord) -> dict[str, Any]:
    """The content of ``best_prompts.json``: task → its best prompt by ``val``, its scores and its trajectory.

    ``parts`` holds the prompts by name, if there are several.
    """
    return {
        task: {**best_prompt(checkpoint), **_parts(checkpoint), "trajectory": asdict(key)}
        for task, (key, checkpoint) in record.best_by_task().items()
    }


def _parts(checkpoint: Checkpoint) -> dict[str, Any]:
    parts = parts_of(checkpoint.trajectory.best.prompt.text)
    return {"parts": parts} if parts else {}


def step_lines(record: RunRecord) -> Iterator[dict[str, Any]]:
    """The content of ``steps.jsonl``, ordered by task, seed and step."""
    for key in sorted(record.checkpoints):
        for step in record.checkpoints[key].trajectory.steps:
            yield step_line(record, key, step)


def step_line(record: RunRecord, key: SearchKey, step: Step) -> dict[str, Any]:
    """One line of ``steps.jsonl``."""
    return {
        "task": key.task,
        "seed": key.seed,
        "step": step.index,
        "first_prompts": step.has_first_prompts,
        "step_size": step.step_size,
        **({"parts": [one.part for one in step.direction.of_parts]} if step.direction.part else {}),
        "neighbours": [neighbour.prompt.text for neighbour in step.direction.neighbours],
        "reflection": step.direction.reflection,
        "summary": step.direction.summary,
        "failures": [asdict(failure) for failure in step.direction.failures],
        "candidates": [
            {
                "prompt": candidate.prompt.text,
                "val": rounded(candidate.score.mean),
                "stderr": rounded(candidate.score.stderr),
                "interval": score_interval(candidate.score),
                "scored": len(candidate.score.scored),
                "unscored": candidate.score.num_unscored,
                "dropped": candidate.is_dropped,
                "left_out": candidate.score.partial.num_left_out if candidate.score.partial else 0,
                "edit_distance": candidate.edit_distance,
            }
            for candidate in step.candidates
        ],
        "malformed": step.samples.num_malformed,
        "rejected": step.samples.num_rejected,
        "repeated": step.samples.num_repeated,
        "failed": step.samples.num_failed,
        "broken": dict(Counter(step.samples.broken)),
        "unscored": [prompt.text for prompt in step.unscored],
        "successor": step.successor.prompt.text,
        "stopped_by": record.stopped_by(key) if step.index + 1 == record.steps_taken(key) else None,
        "llm": {role: asdict(usage) for role, usage in by_role(step.spending).items()},
    }


def as_json(document: Mapping[str, Any]) -> bytes:
    """A document as indented JSON."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def as_json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
