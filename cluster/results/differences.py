"""Whether the best prompt of a trajectory is better than its initial prompt, on ``test``."""

from __future__ import annotations

from typing import Any

from actors.search import SearchKey
from cluster.results.intervals import interval_document
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.intervals import LEVEL, Difference, paired_difference

SIGNIFICANT = 0.05
"""A smaller p-value counts as beyond chance."""
_SHOWN_ONE_BY_ONE = 2
"""With more trajectories, the terminal shows how many differ, and the report shows each."""


def difference_on_test(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The difference as in ``summary.json``; ``None`` for the same prompt, or while one has no scores on ``test``."""
    trajectory = checkpoint.trajectory
    initial, best = (checkpoint.test.get(one.prompt.id) for one in (trajectory.initial, trajectory.best))
    if trajectory.initial.prompt == trajectory.best.prompt or initial is None or best is None:
        return None
    difference = paired_difference(best.score, initial.score)
    if difference is None:
        return None
    return {
        "difference": round(difference.mean, 4),
        "interval": interval_document(difference.interval),
        "p_value": float(f"{difference.p_value:.4g}"),
        "better": difference.num_better,
        "worse": difference.num_worse,
        "scored": difference.num_examples,
        "sentence": difference_sentence(difference),
    }


def difference_sentence(difference: Difference, one: str = "the best prompt", other: str = "the initial prompt") -> str:
    """A paired difference on ``test`` in words."""
    low, high = (f"{100 * end:+.1f}" for end in difference.interval)
    size = f"{100 * abs(difference.mean):.1f} points {'higher' if difference.mean > 0 else 'lower'} than"
    counts = f"{difference.num_better} of {difference.num_examples} examples better, {difference.num_worse} worse"
    p = "p < 0.001" if difference.p_value < 0.001 else f"p = {difference.p_value:.2g}"
    verdict = "is beyond chance" if difference.p_value < SIGNIFICANT else "could be chance"
    return (
        f"On test, {one} scores {size if difference.mean else 'the same as'} {other} "
        f"({100 * LEVEL:.0f} % interval: {low} to {high}; {counts}). "
        + (f"The difference {verdict} ({p})." if difference.mean else "No difference was found.")
    )


def difference_lines(record: RunRecord) -> list[str]:
    """What the differences show: a sentence for each of a few trajectories, or one for many; empty without any."""
    known = _differences(record)
    if len(known) > _SHOWN_ONE_BY_ONE:
        return [difference_summary(record)]
    return [f"{key}: {one['sentence']}" if len(record.keys) > 1 else one["sentence"] for key, one in known.items()]


def difference_summary(record: RunRecord) -> str:
    """In how many searches the best prompt is better, or worse, beyond chance; empty if none was tested."""
    known = _differences(record).values()
    if not known:
        return ""
    clear = [one["difference"] for one in known if one["p_value"] < SIGNIFICANT]
    better, worse = sum(value > 0 for value in clear), sum(value < 0 for value in clear)
    return (
        f"On test, the best prompt is better than the initial prompt in {better} of {len(known)} searches"
        + (f" and worse in {worse}" if worse else "")
        + f", beyond chance (p < {SIGNIFICANT} in each)."
    )


def _differences(record: RunRecord) -> dict[SearchKey, dict[str, Any]]:
    found = {key: difference_on_test(record.checkpoints[key]) for key in record.keys if key in record.checkpoints}
    return {key: one for key, one in found.items() if one is not None}
