"""Scoring by a strategy of a user: calls are guarded, and what they return is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.scoring.candidates import CandidateScoring, Outcome, StepScoring, Unanswered
from gpo.trajectory import Candidate, Trajectory
from gpo.user_code.strategies import OwnStrategy, require_methods


@dataclass(frozen=True)
class OwnScoring(OwnStrategy):
    """A candidate scoring of a user; ``given`` has ``num_val``, ``max_unscored`` and ``seed``.

    Its methods raise ``StrategyError`` if a score does not have a value for each example of ``val``, and if prompts
    would be asked about examples that they have answered, which might never end.
    """

    protocol = CandidateScoring

    async def first(self, evaluator: Evaluator, prompt: Prompt) -> Evaluation:
        with self.calling("first") as own:
            evaluation = await own.first(evaluator, prompt)
        self.require_score("first", evaluation)
        return evaluation  # type: ignore[no-any-return]

    def step(self, trajectory: Trajectory) -> StepScoring:
        with self.calling("step") as own:
            step = own.step(trajectory)
        require_methods(step, StepScoring, f"step of {self.function} returned")
        return _OwnStep(self, step)

    def recheck(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        with self.calling("recheck") as own:
            unanswered = own.recheck(trajectory)
        return self._open("recheck", unanswered, trajectory)

    def unconfirmed(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        with self.calling("unconfirmed") as own:
            unanswered = own.unconfirmed(trajectory)
        return self._open("unconfirmed", unanswered, trajectory)

    def renewed(
        self, trajectory: Trajectory, candidates: Sequence[Candidate] = ()
    ) -> tuple[Trajectory, Sequence[Candidate]]:
        with self.calling("renewed") as own:
            changed, new = own.renewed(trajectory, candidates)
            same = [one.prompt for one in new] == [one.prompt for one in candidates] and [
                one.prompt for one in changed.history
            ] == [one.prompt for one in trajectory.history]
        if not same:
            raise self.refuse("renewed", (changed, new), "which are not the same prompts with other scores")
        return changed, new

    def require_score(self, method: str, evaluation: Any) -> None:
        """Check that an evaluation has a score that a search can use."""
        if not isinstance(evaluation, Evaluation):
            raise self.refuse(method, evaluation, "not an Evaluation")
        values_E, num_val = evaluation.score.values_E, self.given["num_val"]
        if len(values_E) != num_val or not all(value is None or 0 <= value <= 1 for value in values_E):
            raise self.refuse(method, evaluation, f"whose score does not have {num_val} values from 0 to 1, or None")
        mean = evaluation.score.mean
        if isnan(mean) or not 0 <= mean <= 1:
            raise self.refuse(method, evaluation, f"whose mean is {mean}, not from 0 to 1")

    def _open(self, method: str, returned: Any, trajectory: Trajectory) -> Sequence[Unanswered]:
        """What prompts are to answer; each example was not asked before, so that this ends."""
        unanswered = self.listed(method, returned)
        for one in unanswered:
            if not isinstance(one, Unanswered) or one.candidate not in trajectory.history:
                raise self.refuse(method, one, "not an Unanswered of a prompt of the search")
            score = one.candidate.score
            left_out, indices = score.partial.num_left_out if score.partial else 0, set(one.indices)
            open_indices = {index for index, value in enumerate(score.values_E) if value is None}
            if not 0 < len(indices) == len(one.indices) <= left_out or not indices <= open_indices:
                raise self.refuse(method, one, "whose indices are not examples that were left out for the prompt")
        return unanswered


@dataclass(frozen=True, slots=True)
class _OwnStep:
    scoring: OwnScoring
    own: Any

    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        with self.scoring.calling("begin"):
            evaluation = await self.own.begin(evaluator, prompt, settled)
        if not isinstance(evaluation, Evaluation):
            raise self.scoring.refuse("begin", evaluation, "not an Evaluation")
        return evaluation

    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Outcome]:
        with self.scoring.calling("finish"):
            returned = await self.own.finish(evaluator, prompts, begun, settled)
        outcomes = self.scoring.listed("finish", returned)
        if len(outcomes) != len(prompts):
            raise self.scoring.refuse("finish", outcomes, f"not one outcome for each of {len(prompts)} prompts")
        for outcome in outcomes:
            if not isinstance(outcome, PromptUnscored):
                self.scoring.require_score("finish", outcome)
        return outcomes
