"""Prompts of several parts: a step rewrites one or two of them, each in a request that shows this part alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gpo.prompt import Prompt, joined_parts, parts_of
from gpo.trajectory import Candidate, Direction, Failure, Trajectory


def chosen_parts(names: Sequence[str], step: int, num_steps: int, failures: Sequence[Failure]) -> tuple[str, ...]:
    """The parts that a step rewrites: the one that the failures' reasons name, or else two, and later one, in turn.

    A candidate with two changes needs no more answers than one with one change, and may gain twice as much. Near the
    best prompts, most changes do harm, so in the second half of a search a candidate has one of them.

    A reason names a part in brackets, as in ``[plan] forgot the year``. Reasons count if most of the failures have one
    that names a part, and all of these name the same part.

    Args:
        step: number of the step, from 0.
        num_steps: steps of the search, at most.
    """
    named = Counter(name for failure in failures if len(found := _named(names, failure.reason)) == 1 for name in found)
    if len(named) == 1 and named.total() > len(failures) / 2:
        return tuple(named)
    ahead = (0, 1) if 2 * step < num_steps else (0,)
    return tuple(dict.fromkeys(names[(step + one) % len(names)] for one in ahead))


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


def trajectory_of(trajectory: Trajectory, name: str) -> tuple[Trajectory, dict[Prompt, Candidate]]:
    """The trajectory of one part, from which a retriever selects.

    Of candidates with the same text for the part, it contains the best one, in the place of the first one. Otherwise
    the texts of the other parts would decide what is similar, and many neighbours would look like the current prompt.

    Returns:
        The trajectory, whose prompts are the texts of the part, and each of these → the candidate as a whole.
    """
    whole: dict[Prompt, Candidate] = {}
    for candidate in trajectory.history:
        text = part_of(candidate, name).prompt
        known = whole.get(text)
        whole[text] = candidate if known is None or candidate.score.lower > known.score.lower else known
    seen: set[Prompt] = set()

    def first_ones(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        for text in (part_of(candidate, name).prompt for candidate in candidates):
            if text not in seen:
                seen.add(text)
                yield part_of(whole[text], name)

    (initial,) = first_ones([trajectory.initial])
    steps = tuple(
        replace(step, candidates=tuple(first_ones(step.candidates)), successor=part_of(step.successor, name))
        for step in trajectory.steps
    )
    return replace(trajectory, initial=initial, steps=steps, proposal=None), whole


def direction_of(direction: Direction) -> Direction:
    """The direction with the texts of its part alone."""
    return replace(direction, neighbours=tuple(part_of(one, direction.part) for one in direction.neighbours))
