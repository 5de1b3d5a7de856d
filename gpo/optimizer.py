"""Gradient-inspired Prompt Optimization (arXiv:2402.17564).

A prompt is treated as a parameter. Each step retrieves past prompts as the update direction, asks the optimizer model
for new prompts within a decaying step size, scores them on the ``val`` split, and chooses the next current prompt.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from gpo.data.example import Example
from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt, edit_distance
from gpo.runtime.concurrency import gather
from gpo.scoring.candidates import (
    Announce,
    CandidateScorer,
    CandidateScoring,
    FullScoring,
    Outcome,
    Unanswered,
    evaluated,
    silent,
)
from gpo.strategies.acceptance import Acceptance
from gpo.strategies.batches import TrainBatches
from gpo.strategies.parts import chosen_parts, trajectory_of
from gpo.strategies.proposer import OnPrompt, Proposer, ignore_prompt
from gpo.strategies.reflection import Reflector
from gpo.strategies.retrieval import Retriever
from gpo.strategies.schedule import StepSizeSchedule
from gpo.strategies.stopping import StoppingRule
from gpo.strategies.summary import Summarizer
from gpo.trajectory import Candidate, Direction, OtherPart, Proposal, Samples, Spending, Step, Trajectory

log = logging.getLogger(__name__)

_MOST_REFUSED = 2
"""Prompts that may be dropped because the endpoint refuses them on the rest of ``val``; more are an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GPO:
    """The optimizer of one task.

    Attributes:
        num_steps: updates in a search, at most; ≥ 0. The step of ``first`` is one of them.
        num_candidates: prompts requested per step, ≥ 1.
        num_neighbours: past prompts shown to the optimizer model, ≥ 0.
        train: the train split; ``batches`` selects a batch of it for each step.
        num_exemplars: examples of the step's batch shown to the optimizer model, ≥ 0.
        scoring: how the candidates of a step are scored.
        stopping: when the search ends before it has taken ``num_steps`` steps; by default never.
        first: writes the candidates of the first step, which are not made from the initial prompt. The schedule and
            the passes over ``train`` begin with the next step. ``None`` for a search from the initial prompt alone.
        parts: the names of the prompts that are optimized together; empty for one prompt.
        seed: determines all random choices. With equal seeds and deterministic models, two searches are equal, even if
            they were interrupted and resumed.
    """

    retriever: Retriever
    reflector: Reflector
    summarizer: Summarizer
    schedule: StepSizeSchedule
    proposer: Proposer
    evaluator: Evaluator
    acceptance: Acceptance
    num_steps: int
    num_candidates: int
    num_neighbours: int
    train: Sequence[Example]
    batches: TrainBatches
    num_exemplars: int
    seed: int
    scoring: CandidateScoring = field(default_factory=FullScoring)
    stopping: StoppingRule = field(default_factory=StoppingRule)
    first: Proposer | None = None
    parts: tuple[str, ...] = ()

    async def start(self, prompt: Prompt) -> Trajectory:
        """Score the initial prompt and return a trajectory without steps."""
        evaluation = await self.scoring.first(self.evaluator, prompt)
        return Trajectory(Candidate(prompt, evaluation.score), initial_spending=evaluation.spending)

    async def run(self, trajectory: Trajectory, announce: Announce = silent) -> AsyncGenerator[Trajectory, None]:
        """Yield the trajectory after each change that is worth saving; pass a saved one to resume it.

        Every update yields two trajectories: one when its prompts are proposed, one when its step is complete. When no
        further step follows (see ``is_done``), the best prompt is scored on the examples of ``val`` that it has not
        answered, if there are any. A trajectory that is complete yields nothing. Close the generator to stop early:
        scoring continues in the background while the generator is suspended.

        Args:
            announce: called with the progress of scoring a step.

        Raises:
            ModelError, EvaluationError: the step failed; the last yielded trajectory remains valid.
        """
        while True:
            if not self.is_done(trajectory):
                scoring = self.scoring.step(trajectory)
                async with CandidateScorer(self.evaluator, scoring, self.num_candidates, announce) as candidates:
                    if trajectory.proposal is None:
                        # Each prompt is scored as soon as it arrives, while others are still being sampled.
                        proposal = await candidates.result(
                            candidates.begin_alongside(self.propose(trajectory, candidates.begin))
                        )
                        trajectory = trajectory.begin(proposal)
                        yield trajectory
                    trajectory = await self.step(trajectory, candidates)
            elif unconfirmed := self.scoring.unconfirmed(trajectory):
                # If the best prompt then misses the target of the stopping rule, the search continues.
                trajectory = await self._confirmed(trajectory, unconfirmed, announce)
            else:
                return
            yield trajectory

    def is_done(self, trajectory: Trajectory) -> bool:
        """Whether the search takes no further step."""
        return len(trajectory.steps) >= self.num_steps or self.stopping.reason(trajectory) is not None

    async def propose(self, trajectory: Trajectory, on_prompt: OnPrompt = ignore_prompt) -> Proposal:
        """Ask for the prompts of the next step; ``on_prompt`` is called with each new prompt, perhaps repeatedly."""
        index, current = len(trajectory.steps), trajectory.current
        first = self.first if index == 0 else None
        number = index if self.first is None else max(0, index - 1)
        batch = self.batches(number)

        # Update direction: what the optimizer model is shown of the trajectory and of failures on train.
        if first is None:
            direction, spent = await self._direction(trajectory, batch, index, number)
        else:
            direction, spent = Direction(), Spending()

        # Update method: rewrite the current prompt within a decaying step size.
        step_size = self.schedule(number) if first is None else None
        shown = Random(f"{self.seed}/{index}/exemplars").sample(batch, min(self.num_exemplars, len(batch)))
        proposals = await (first or self.proposer).propose(
            current,
            direction,
            step_size=step_size,
            exemplars=[self.train[position] for position in shown],
            n=self.num_candidates,
            seed=self._seed(index, "proposals"),
            on_prompt=lambda prompt: [on_prompt(fresh) for fresh in trajectory.unseen([prompt])],
        )

        # No prompt is scored twice.
        fresh = trajectory.unseen(proposals.prompts)
        return Proposal(
            step_size=step_size,
            direction=direction,
            prompts=fresh,
            samples=Samples(
                num_malformed=proposals.num_malformed,
                num_rejected=proposals.num_rejected,
                num_repeated=len(proposals.prompts) - len(fresh),
                num_failed=proposals.num_failed,
                broken=proposals.broken,
            ),
            spending=spent + Spending(optimizer=proposals.usage),
            has_first_prompts=first is not None,
        )

    async def _direction(
        self, trajectory: Trajectory, batch: Sequence[int], index: int, number: int
    ) -> tuple[Direction, Spending]:
        summary, reflection = await gather(
            (
                self.summarizer.summarize(trajectory, seed=self._seed(index, "summary")),
                self.reflector.reflect(trajectory.current, batch, seed=self._seed(index, "reflection")),
            )
        )
        names, failures = self.parts, reflection.failures
        parts = chosen_parts(names, number, self.num_steps, failures) if names else ("",)
        known = trajectory.reflections
        shown = [
            OtherPart(part, neighbours, tuple(known.get(neighbour.prompt) for neighbour in neighbours))
            for part in parts
            for neighbours in [await self._neighbours(trajectory, part)]
        ]
        direction = Direction(
            neighbours=shown[0].neighbours,
            neighbour_reflections=shown[0].neighbour_reflections,
            reflection=reflection.text,
            summary=summary.text,
            failures=failures,
            part=shown[0].name,
            others=tuple(shown[1:]),
        )
        return direction, summary.spending + reflection.spending

    async def _neighbours(self, trajectory: Trajectory, part: str) -> tuple[Candidate, ...]:
        if not part:
            return await self.retriever.retrieve(trajectory, k=self.num_neighbours)
        of_part, whole = trajectory_of(trajectory, part)
        found = await self.retriever.retrieve(of_part, k=self.num_neighbours)
        return tuple(whole[one.prompt] for one in found)

    async def step(self, trajectory: Trajectory, scorer: CandidateScorer) -> Trajectory:
        """Score the current proposal, choose the next current prompt, and return the trajectory after the step."""
        proposal, current = trajectory.proposal, trajectory.current
        if proposal is None:
            raise ValueError("there is no proposal to score")

        # Only the val split steers the search.
        rechecking = scorer.begin_alongside(self._rechecked(trajectory))
        outcomes = dict(zip(proposal.prompts, await scorer.outcomes(proposal.prompts), strict=True))
        trajectory, spent = await scorer.result(rechecking)
        scored = [
            Candidate(prompt, outcome.score, edit_distance(current.prompt, prompt))
            for prompt, outcome in outcomes.items()
            if isinstance(outcome, Evaluation)
        ]
        for failure in (outcome for outcome in outcomes.values() if isinstance(outcome, PromptUnscored)):
            log.warning("a candidate is dropped: %s", failure)
        trajectory, candidates = self.scoring.renewed(trajectory, scored)
        step = Step(
            index=len(trajectory.steps),
            step_size=proposal.step_size,
            direction=proposal.direction,
            candidates=tuple(candidates),
            successor=self.acceptance.choose(trajectory, candidates),
            samples=proposal.samples,
            spending=sum((_spent(outcome) for outcome in outcomes.values()), start=proposal.spending + spent),
            unscored=tuple(prompt for prompt, outcome in outcomes.items() if isinstance(outcome, PromptUnscored)),
            has_first_prompts=proposal.has_first_prompts,
        )
        return trajectory.append(step)

    async def _confirmed(
        self, trajectory: Trajectory, unconfirmed: Sequence[Unanswered], announce: Announce
    ) -> Trajectory:
        """Score prompts on the examples that they have not answered."""
        announce(0, len(unconfirmed))
        outcomes = await self._answers(unconfirmed)
        failures = [outcome for outcome in outcomes if isinstance(outcome, PromptUnscored)]
        if failures and sum(candidate.is_dropped for candidate in trajectory.history) >= _MOST_REFUSED:
            # It is not about these prompts; all others would be dropped one after another.
            raise failures[0]
        trajectory, spent = _with_answers(trajectory, unconfirmed, outcomes)
        announce(len(unconfirmed), len(unconfirmed))
        trajectory, _ = self.scoring.renewed(trajectory)
        return replace(trajectory, confirmation_spending=trajectory.confirmation_spending + spent)

    async def _rechecked(self, trajectory: Trajectory) -> tuple[Trajectory, Spending]:
        """The trajectory with more answers of its current prompt, and what they cost; a failure changes nothing."""
        unanswered = self.scoring.recheck(trajectory)
        outcomes = await self._answers(unanswered)
        if any(isinstance(outcome, PromptUnscored) for outcome in outcomes):
            return trajectory, sum((_spent(outcome) for outcome in outcomes), start=Spending())
        return _with_answers(trajectory, unanswered, outcomes)

    async def _answers(self, unanswered: Sequence[Unanswered]) -> list[Outcome]:
        return await gather(evaluated(self.evaluator, one.candidate.prompt, one.indices) for one in unanswered)

    def _seed(self, index: int, purpose: str) -> int:
        # Derived from the step's index, not from a running generator, so that a resumed search draws the same numbers.
        # All endpoints accept at least signed 32-bit seeds.
        return Random(f"{self.seed}/{index}/{purpose}").getrandbits(31)


def _spent(outcome: Outcome) -> Spending:
    return outcome.spending if isinstance(outcome.spending, Spending) else Spending()


def _with_answers(
    trajectory: Trajectory, unanswered: Sequence[Unanswered], outcomes: Sequence[Outcome]
) -> tuple[Trajectory, Spending]:
    """The trajectory with the scores on more examples, and what they cost."""
    pairs = zip(unanswered, outcomes, strict=True)
    scores = {one.candidate.prompt: one.score_with(outcome) for one, outcome in pairs}
    return trajectory.rescored(scores), sum((_spent(outcome) for outcome in outcomes), start=Spending())
