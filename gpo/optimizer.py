"""Gradient-inspired Prompt Optimization (arXiv:2402.17564): the loop.

A prompt is treated as a parameter. Each step retrieves past prompts as the update direction, has the optimizer model
write new prompts within a step size that decays, scores them on the ``val`` split, and moves on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random

from gpo.acceptance import Acceptance
from gpo.evaluation import Evaluator
from gpo.prompt import Prompt, edit_distance
from gpo.proposer import Proposer
from gpo.retrieval import Retriever
from gpo.schedule import StepSizeSchedule
from gpo.tasks import Split
from gpo.trajectory import Candidate, Proposal, Spending, Step, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class GPO:
    """One optimizer for one task.

    Attributes:
        num_steps: updates in a whole search, ≥ 0.
        num_candidates: prompts asked for in a step, ≥ 1.
        num_neighbours: past prompts shown to the optimizer model, ≥ 0.
        seed: decides everything random. With equal seeds and deterministic models, two searches are equal, whether
            or not they were interrupted and resumed.
    """

    retriever: Retriever
    schedule: StepSizeSchedule
    proposer: Proposer
    evaluator: Evaluator
    acceptance: Acceptance
    num_steps: int
    num_candidates: int
    num_neighbours: int
    seed: int

    async def start(self, prompt: Prompt) -> Trajectory:
        """A search that has only scored its initial prompt."""
        (evaluation,) = await self.evaluator.evaluate([prompt], Split.VAL)
        return Trajectory(Candidate(prompt, evaluation.score), initial_spending=Spending(task=evaluation.usage))

    async def run(self, trajectory: Trajectory) -> AsyncIterator[Trajectory]:
        """Yield the trajectory after each change worth saving; resume by passing a saved one back in.

        Every update yields twice: once its proposal is bought, and once its step is taken. The last trajectory that
        is yielded has ``num_steps`` steps; one that has them already yields nothing.

        Raises:
            ModelError, EvaluationError: what could not be done; the last trajectory yielded is still good.
        """
        while len(trajectory.steps) < self.num_steps:
            if trajectory.proposal is None:
                trajectory = trajectory.begin(await self.propose(trajectory))
                yield trajectory
            trajectory = trajectory.append(await self.step(trajectory))
            yield trajectory

    async def propose(self, trajectory: Trajectory) -> Proposal:
        """Buy the next step's prompts."""
        index = len(trajectory.steps)

        # Update direction: past prompts that tell the optimizer model where to go.
        neighbours = await self.retriever.retrieve(trajectory, k=self.num_neighbours)

        # Update method: rewrite the current prompt within a decaying step size.
        step_size = self.schedule(index)
        proposals = await self.proposer.propose(
            trajectory.current, neighbours, step_size=step_size, n=self.num_candidates, seed=self._seed(index)
        )

        # No prompt is paid for twice.
        fresh = trajectory.unseen(proposals.prompts)
        return Proposal(
            step_size=step_size,
            neighbours=neighbours,
            prompts=fresh,
            num_malformed=proposals.num_malformed,
            spending=Spending(optimizer=proposals.usage),
            num_rejected=proposals.num_rejected,
        )

    async def step(self, trajectory: Trajectory) -> Step:
        """Score the proposal under way and choose who goes on."""
        proposal, current = trajectory.proposal, trajectory.current
        if proposal is None:
            raise ValueError("there is no proposal to score")

        # Only the val split steers the search.
        evaluations = await self.evaluator.evaluate(proposal.prompts, Split.VAL)
        candidates = tuple(
            Candidate(prompt, evaluation.score, edit_distance(current.prompt, prompt))
            for prompt, evaluation in zip(proposal.prompts, evaluations, strict=True)
        )
        return Step(
            index=len(trajectory.steps),
            step_size=proposal.step_size,
            neighbours=proposal.neighbours,
            candidates=candidates,
            successor=self.acceptance.choose(trajectory, candidates),
            num_malformed=proposal.num_malformed,
            num_rejected=proposal.num_rejected,
            spending=sum((Spending(task=evaluation.usage) for evaluation in evaluations), start=proposal.spending),
        )

    def _seed(self, index: int) -> int:
        # From the step's index, not from a running generator: a resumed search draws the same numbers.
        return Random(f"{self.seed}/{index}").getrandbits(63)
