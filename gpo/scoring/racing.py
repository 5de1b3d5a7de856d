"""Racing: scores candidates block by block and drops those that cannot become the best of the step.

Follows Hoeffding races (Maron & Moore, 1994) with paired differences, as in F-Race (Birattari et al., 2002): a bad
prompt can be distinguished from the best one long before the last example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, isnan, sqrt
from random import Random
from statistics import fmean, stdev

from gpo.data.task import Split
from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather
from gpo.score import Flaws, Partial, Score
from gpo.scoring.candidates import NothingEstimated, Outcome, StepScoring, evaluated, too_many_unscored
from gpo.trajectory import Spending, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Racing(NothingEstimated):
    """Scores only those candidates on all of ``val`` that can still be the best of their step.

    The first block of a candidate starts as soon as the candidate arrives. In each following round, the remaining
    candidates answer the same examples. Every round has about as many calls as the first, so that the endpoint is as
    busy with two candidates as with eight; the last remaining candidate gets all remaining examples at once. After
    each round, every other candidate is compared with the leader, which has the highest mean so far, and is dropped

    - with certainty, if it cannot catch up even if all its remaining answers are right and the leader's are wrong, or
    - by a paired, one-sided t-test on the examples that are scored for both. The standard error is that of sampling
      from ``val`` without replacement, so it is 0 once every example was used.

    Holm's method keeps the p-values of a round at the level ``alpha``. There is no correction across rounds, since they
    share most of their examples and Holm's method is conservative. In the worst case, where all candidates are equally
    good and right on different examples, a step of eight candidates loses its best one with about the probability
    ``alpha`` over all rounds; a step of two or three candidates loses it almost twice as often. The loss is small: at
    0.1, a third to two thirds of a percentage point on average.

    Decisions depend on verdicts alone, never on the order of their arrival.

    Attributes:
        num_examples: size of ``val``, ≥ 1.
        block: number of examples in the first round, ≥ 1; with ``num_examples``, nothing is dropped.
        alpha: level of all tests of a round together, in (0, 1): an upper bound on the probability that the round drops
            the best candidate of the step, if means are normally distributed.
        max_unscored: share of examples in [0, 1] that may stay unscored for a prompt.
        seed: determines the order of the examples. All steps share this order, so that a prompt always answers the same
            examples first; shuffling prevents that blocks follow the order of a sorted file.
    """

    num_examples: int
    block: int
    alpha: float
    max_unscored: float
    seed: int

    def step(self, trajectory: Trajectory) -> StepScoring:
        return self

    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        (evaluation,) = await evaluator.evaluate([prompt], Split.VAL, self.order[: self.block])
        return evaluation

    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Outcome]:
        order_E = self.order
        runners = [_Runner(prompt) for prompt in prompts]
        left, answered, asked = runners, 0, min(self.block, self.num_examples)
        blocks: Sequence[Outcome] = begun
        while left:
            for runner, block in zip(left, blocks, strict=True):
                runner.take(block)
                self._check(runner)
                if runner.failure is not None:
                    settled()
            left = [runner for runner in left if runner.failure is None]
            answered += asked
            if not left:
                break
            if answered == self.num_examples:
                break
            remaining = self._remaining(left)
            for _ in range(len(left) - len(remaining)):
                settled()
            left = remaining
            # About as many calls as in the first round.
            size = ceil(self.block * len(prompts) / len(left)) if len(left) > 1 else self.num_examples
            asked = min(size, self.num_examples - answered)
            indices = order_E[answered : answered + asked]
            blocks = await gather(evaluated(evaluator, runner.prompt, indices) for runner in left)
        for _ in left:
            settled()
        winner = max(left, key=_Runner.mean, default=None)
        return [runner.failure or runner.evaluation(order_E, winner) for runner in runners]

    @property
    def order(self) -> list[int]:
        """Indices into ``val`` in the order of use."""
        return Random(f"{self.seed}/racing").sample(range(self.num_examples), self.num_examples)

    def _remaining(self, runners: Sequence[_Runner]) -> list[_Runner]:
        """The candidates that can still become the best, in order; always includes the leader."""
        leader = max(runners, key=_Runner.mean)
        others = [runner for runner in runners if runner is not leader]
        num_left = self.num_examples - len(leader.values)
        dropped = [runner for runner in others if runner.highest(num_left) < leader.lowest(num_left)]
        p_values = {id(runner): self._p_value(leader, runner) for runner in others}
        # Holm: multiply the smallest p-value by the number of tests, the next one by one less, and so on.
        for index, runner in enumerate(sorted(others, key=lambda runner: p_values[id(runner)])):
            if p_values[id(runner)] * (len(others) - index) > self.alpha:
                break
            dropped.append(runner)
        return [runner for runner in runners if all(runner is not other for other in dropped)]

    def _p_value(self, leader: _Runner, runner: _Runner) -> float:
        """The probability of such a lead if both are equally good on all of ``val``."""
        # The import takes half a second.
        from scipy.special import stdtr

        leads = leader.leads_over(runner)
        if len(leads) < 2 or fmean(leads) <= 0:
            return 1.0
        deviation = stdev(leads)
        if deviation == 0:
            # Without variance, use the sign test: ahead on every example, as in coin tosses.
            return float(0.5 ** len(leads))
        drawn = len(leader.values) / self.num_examples
        stderr = deviation / sqrt(len(leads)) * sqrt(1 - drawn)
        return float(stdtr(len(leads) - 1, -fmean(leads) / stderr))

    def _check(self, runner: _Runner) -> None:
        if runner.failure is not None:
            return
        unscored = runner.values.count(None)
        if unscored / self.num_examples > self.max_unscored or unscored == self.num_examples:
            runner.failure = too_many_unscored(unscored, self.num_examples, self.max_unscored, runner.spending)


@dataclass(slots=True)
class _Runner:
    """A candidate in the race; its values are in the order in which the examples are used."""

    prompt: Prompt
    values: list[float | None] = field(default_factory=list[float | None])
    spending: Spending = field(default_factory=Spending)
    failure: PromptUnscored | None = None
    flaws: Flaws = field(default_factory=Flaws)

    def take(self, block: Outcome) -> None:
        """Append the outcome of a block."""
        if isinstance(block, PromptUnscored):
            spent = block.spending if isinstance(block.spending, Spending) else Spending()
            self.failure = PromptUnscored(str(block), block.is_refused, self.spending + spent)
            return
        self.values += block.score.values_E
        self.spending += block.spending
        self.flaws += block.score.flaws

    def scored(self) -> list[float]:
        """The known values."""
        return [value for value in self.values if value is not None]

    def mean(self) -> float:
        """The mean so far; -1 if no value is known."""
        mean = Score(tuple(self.values)).mean
        return -1.0 if isnan(mean) else mean

    def highest(self, num_left: int) -> float:
        """The mean if all remaining answers are right."""
        scored = self.scored()
        return (sum(scored) + num_left) / (len(scored) + num_left)

    def lowest(self, num_left: int) -> float:
        """The mean if all remaining answers are wrong."""
        scored = self.scored()
        return sum(scored) / (len(scored) + num_left)

    def leads_over(self, other: _Runner) -> list[float]:
        """The differences to another candidate's values on examples where both are known."""
        pairs = zip(self.values, other.values, strict=False)
        return [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]

    def evaluation(self, order_E: Sequence[int], winner: _Runner | None) -> Evaluation:
        """The evaluation with values in the order of the examples; unused examples are left out."""
        values_E: list[float | None] = [None] * len(order_E)
        for position, value in zip(order_E, self.values, strict=False):
            values_E[position] = value
        num_left_out = len(order_E) - len(self.values)
        estimate = max(0.0, self.mean()) if winner is None else self._estimate(winner)
        partial = Partial(num_left_out, estimate) if num_left_out else None
        return Evaluation(Score(tuple(values_E), partial, self.flaws), self.spending.task, self.spending.judge)

    def _estimate(self, winner: _Runner) -> float:
        """Estimate the mean over all examples: the winner's mean less its lead on the common examples.

        At most the winner's mean, even if the dropped candidate was ahead on the few examples that it answered.
        """
        leads = winner.leads_over(self)
        return min(winner.mean(), max(0.0, winner.mean() - fmean(leads))) if leads else 0.0
