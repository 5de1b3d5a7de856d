"""Prompts of several parts: a step rewrites one part, and the optimizer model sees the prompts of that part alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gpo.prompt import Prompt, joined_parts, parts_of
from gpo.trajectory import Candidate, Direction, Failure


def chosen_part(names: Sequence[str], step: int, failures: Sequence[Failure]) -> str:
    """The part that a step rewrites: the one that the failures' reasons name, or else each in turn.

    A reason names a part in brackets, as in ``[plan] forgot the year``. Reasons count if most of the failures have one
    that names a part, and all of these name the same part.

    Args:
        step: number of the step, from 0.
    """
    named = Counter(name for failure in failures if len(found := _named(names, failure.reason)) == 1 for name in found)
    if len(named) == 1 and named.total() > len(failures) / 2:
        return next(iter(named))
    return names[step % len(names)]


def _named(names: Sequence[str], reason: str) -> set[str]:
    return {name for name in names if f"[{name}]" in reason}


def with_part(prompt: Prompt, name: str, text: str) -> Prompt:
    """The prompt with another text for one of its parts; a heading in the text stays part of the text's line.

    Raises:
        ValueError: the text contains a line that would divide it.
    """
    parts = {**parts_of(prompt.text), name: text.strip()}
    joined = joined_parts(parts)
    if parts_of(joined) != parts:
        raise ValueError("the text contains a line such as [[name]]")
    return Prompt(joined)


def part_of(candidate: Candidate, name: str) -> Candidate:
    """The candidate with the text of one part alone, and the score of the whole."""
    return replace(candidate, prompt=Prompt(parts_of(candidate.prompt.text).get(name, candidate.prompt.text)))


def direction_of(direction: Direction) -> Direction:
    """The direction with the texts of its part alone. Of prompts that are equal there, the best one remains."""
    best: dict[str, tuple[Candidate, str | None]] = {}
    pairs = zip(direction.neighbours, direction.neighbour_reflections, strict=True)
    for neighbour, reflection in pairs:
        seen = part_of(neighbour, direction.part)
        known = best.pop(seen.prompt.text, None)
        best[seen.prompt.text] = known if known and known[0].score.lower > seen.score.lower else (seen, reflection)
    return replace(
        direction,
        neighbours=tuple(candidate for candidate, _ in best.values()),
        neighbour_reflections=tuple(reflection for _, reflection in best.values()),
    )
