"""Scores that may show a wrong setting rather than a bad prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cluster.results.run_record import RunRecord
from gpo.score import Score
from gpo.trajectory import Trajectory

_WORTH_SAYING = 0.2
"""Least share of a prompt's answers that is worth a warning."""


_ENOUGH = 5
"""If at least this many answers all score 0, something may be wrong."""


def score_warnings(score: Score, what: str) -> Iterator[str]:
    """A sentence for each flaw, with the option to change, if more than a fifth of a prompt's answers have one.

    Args:
        what: names the prompt and the split, such as ``the initial prompt on val``.
    """
    asked = score.num_examples - (score.partial.num_left_out if score.partial else 0)
    remedies = {
        "cut off at max_tokens": (score.flaws.cut, "raise models.task.sampling.max_tokens"),
        "empty": (
            score.flaws.empty,
            "a model that thinks may need more models.task.sampling.max_tokens, or a setting that turns thinking off",
        ),
        "without anything that answer.kind can read": (
            score.flaws.unreadable,
            "let the prompt name the form of the answer, or change tasks[].answer.kind or answer.parser",
        ),
    }
    if sum(number for number, _ in remedies.values()) <= _WORTH_SAYING * asked:
        if len(score.scored) >= _ENOUGH and not any(score.scored):
            number = len(score.scored)
            yield f"all {number} answers to {what} scored 0; look at them with gpo show, and check metric and targets"
        return
    for flaw, (number, remedy) in remedies.items():
        if number:
            yield f"{number} of {asked} answers to {what} are {flaw}; {remedy}"


def rule_warnings(trajectory: Trajectory, name: str) -> Iterator[str]:
    """A sentence if most new prompts of a search broke rules, with the rule that most of them broke."""
    broken = Counter(rule for step in trajectory.steps for rule in step.samples.broken)
    found = sum(len(step.candidates) for step in trajectory.steps)
    if broken.total() > found:
        (rule, number), *_ = broken.most_common(1)
        yield (
            f"{broken.total()} of {broken.total() + found} new prompts of {name} were dropped, {number} of them by the "
            f"rule {rule}; state it in optimizer.meta_prompt.extra, relax it, or use a larger optimizer model"
        )


def run_warnings(record: RunRecord) -> list[str]:
    """The warnings about the best prompt of each trajectory, on ``val`` and ``test``."""
    warnings: list[str] = []
    for key in record.keys:
        checkpoint = record.checkpoints.get(key)
        if checkpoint is None:
            continue
        warnings += rule_warnings(checkpoint.trajectory, str(key))
        best = checkpoint.trajectory.best
        warnings += score_warnings(best.score, f"the best prompt of {key} on val")
        if (test := checkpoint.test.get(best.prompt.id)) is not None:
            warnings += score_warnings(test.score, f"the best prompt of {key} on test")
    return warnings
