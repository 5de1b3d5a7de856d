"""Strategies of a user, as a search uses them: calls are guarded, and what they return is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpo.strategies.acceptance import Acceptance
from gpo.strategies.refinement import Refinement
from gpo.strategies.retrieval import Retriever
from gpo.strategies.schedule import StepSizeSchedule
from gpo.trajectory import Candidate, Trajectory
from gpo.user_code.strategies import OwnStrategy


@dataclass(frozen=True)
class OwnAcceptance(OwnStrategy):
    """An acceptance rule of a user."""

    protocol = Acceptance

    def choose(self, trajectory: Trajectory, candidates: Sequence[Candidate]) -> Candidate:
        """The choice. Raises ``StrategyError`` if it is no candidate, no earlier prompt, or was dropped."""
        with self.calling("choose") as own:
            chosen = own.choose(trajectory, candidates)
        if chosen == trajectory.current:
            return trajectory.current
        if chosen not in (*candidates, *trajectory.history):
            raise self.refuse("choose", chosen, "not a candidate of the step or of an earlier one")
        if chosen.is_dropped:
            raise self.refuse("choose", chosen, "a candidate that was dropped")
        return chosen  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OwnRetriever(OwnStrategy):
    """A retriever of a user; ``given`` has the ``embedder``."""

    protocol = Retriever

    async def retrieve(self, trajectory: Trajectory, *, k: int) -> tuple[Candidate, ...]:
        """The past prompts. Raises ``StrategyError`` if they are more than ``k``, repeat, or are no past prompts."""
        with self.calling("retrieve") as own:
            returned = await own.retrieve(trajectory, k=k)
        found = self.listed("retrieve", returned)
        past = {one.prompt: one for one in trajectory.history if one.prompt != trajectory.current.prompt}
        if not all(isinstance(one, Candidate) and past.get(one.prompt) == one for one in found):
            raise self.refuse("retrieve", found, "which are not all past candidates without the current one")
        if len(found) > k or len({one.prompt for one in found}) < len(found):
            raise self.refuse("retrieve", found, f"which are not up to {k} different candidates")
        return found


@dataclass(frozen=True)
class OwnSchedule(OwnStrategy):
    """A step-size schedule of a user; ``given`` has ``num_steps`` ≥ 1."""

    protocol = StepSizeSchedule

    def __call__(self, step: int) -> int | None:
        """The step size. Raises ``StrategyError`` if it is neither a whole number from 1 nor ``None``."""
        with self.calling(f"step {step}") as own:
            size = own(step)
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise self.refuse(f"step {step}", size, "not a whole number from 1, or None for no bound")
        return size

    def check(self) -> None:
        """Check all steps, too."""
        super().check()
        for step in range(self.given["num_steps"]):
            self(step)


@dataclass(frozen=True)
class OwnRefinement(OwnStrategy):
    """A refinement of a user."""

    protocol = Refinement

    def instruction(self, evidence: str, step_size: int | None) -> str:
        """The instruction. Raises ``StrategyError`` if it is not a text, or empty."""
        with self.calling("instruction") as own:
            text = own.instruction(evidence, step_size)
        if not isinstance(text, str) or not text.strip():
            raise self.refuse("instruction", text, "not a text with words")
        return text

    def check(self) -> None:
        """Check an instruction, too."""
        super().check()
        self.instruction("", 10)
