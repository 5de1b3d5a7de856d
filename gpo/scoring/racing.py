"""Racing: candidates answer ``val`` block by block, and those that cannot become the best of the step are dropped.

The idea is that of Hoeffding races (Maron & Moore, 1994) with paired differences, as in F-Race (Birattari et al.,
2002): what separates a bad prompt from the best one shows long before the last example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, isnan, sqrt
from random import Random
from statistics import fmean, stdev

from gpo.concurrency import gather
from gpo.data.task import Split
from gpo.errors import EvaluationError
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.score import Partial, Score
from gpo.trajectory import Spending


@dataclass(frozen=True, slots=True, kw_only=True)
class Racing:
    """Scores only those candidates on all of ``val`` that may be the best of their step.

    A candidate's first block is asked as soon as it is there. Then come rounds, in which the candidates that are left
    answer the same examples side by side. Each round is about as many calls as the first, so that an endpoint has as
    much to do with two candidates as with eight; the last candidate gets all that is left at once. After each round,
    each of the others is compared with the leader, which has the highest mean so far, and is dropped

    - for certain, where it cannot catch up even if it gets all that is left and the leader nothing, or
    - by a paired, one-sided t-test on the examples that both have a verdict on. ``val`` is all that is asked about, so
      the standard error is that of drawing from it without putting back: it is 0 once every example is asked.

    Of many tests, some fail by chance. So the p-values of a round are held against ``alpha`` by Holm's method. Rounds
    are not corrected for among each other: they share most of their examples, and Holm's method is on the safe side.
    Over all rounds together, a step of eight candidates loses its best about as often as ``alpha`` says in the hardest
    case, in which all are equally good and right about different examples; one of two or three, nearly twice as often.
    What such a step loses is little: at 0.1, a third to two thirds of a point of 100 in the mean.

    Decisions depend on verdicts alone, never on the order in which they come.

    Attributes:
        num_examples: of ``val``, ≥ 1.
        block: examples in the first round, ≥ 1; with as many as there are, nobody is dropped.
        alpha: the level of the tests of one round, all together, in (0, 1): the probability, at most, with which the
            round drops the candidate that would have been the best of the step, as far as means are normal.
        max_unscored: share of the examples in [0, 1] that may stay unscored with a prompt.
        seed: of the order in which examples are asked. All steps share it: blocks are no strata of a sorted file, and
            a prompt is asked the same examples first whenever it is tried.
    """

    num_examples: int
    block: int
    alpha: float
    max_unscored: float
    seed: int

    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        (evaluation,) = await evaluator.evaluate([prompt], Split.VAL, self.order[: self.block])
        return evaluation

    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Evaluation]:
        order_E = self.order
        runners = [_Runner(prompt) for prompt in prompts]
        left, answered, asked = runners, 0, min(self.block, self.num_examples)
        blocks = begun
        while left:
            for runner, evaluation in zip(left, blocks, strict=True):
                runner.take(evaluation)
                self._check(runner)
            answered += asked
            if answered == self.num_examples:
                break
            staying = self._staying(left)
            for _ in range(len(left) - len(staying)):
                settled()
            left = staying
            # As many calls as in the first round.
            size = ceil(self.block * len(prompts) / len(left)) if len(left) > 1 else self.num_examples
            asked = min(size, self.num_examples - answered)
            indices = order_E[answered : answered + asked]
            rows = await gather(evaluator.evaluate([runner.prompt], Split.VAL, indices) for runner in left)
            blocks = [evaluation for row in rows for evaluation in row]
        for _ in left:
            settled()
        winner = max(left, key=_Runner.mean, default=None)
        return [runner.evaluation(order_E, winner) for runner in runners]

    @property
    def order(self) -> list[int]:
        """The positions in ``val``, in the order in which they are asked."""
        return Random(f"{self.seed}/racing").sample(range(self.num_examples), self.num_examples)

    def _staying(self, runners: Sequence[_Runner]) -> list[_Runner]:
        """Those who may still become the best, in order; the leader is always among them."""
        leader = max(runners, key=_Runner.mean)
        others = [runner for runner in runners if runner is not leader]
        num_left = self.num_examples - len(leader.values)
        dropped = [runner for runner in others if runner.highest(num_left) < leader.lowest(num_left)]
        p_values = {id(runner): self._p_value(leader, runner) for runner in others}
        # Holm: the smallest p-value has to be as small as if all were compared, the next as if all but that one, ...
        for index, runner in enumerate(sorted(others, key=lambda runner: p_values[id(runner)])):
            if p_values[id(runner)] * (len(others) - index) > self.alpha:
                break
            dropped.append(runner)
        return [runner for runner in runners if all(runner is not other for other in dropped)]

    def _p_value(self, leader: _Runner, runner: _Runner) -> float:
        """How probable so large a lead is where, over all of ``val``, there is none."""
        # Half a second to import, which only those spend who race.
        from scipy.special import stdtr

        leads = leader.leads_over(runner)
        if len(leads) < 2 or fmean(leads) <= 0:
            return 1.0
        deviation = stdev(leads)
        if deviation == 0:
            # No spread to measure by: ahead on each of these examples, as by tossing a coin.
            return float(0.5 ** len(leads))
        drawn = len(leader.values) / self.num_examples
        stderr = deviation / sqrt(len(leads)) * sqrt(1 - drawn)
        return float(stdtr(len(leads) - 1, -fmean(leads) / stderr))

    def _check(self, runner: _Runner) -> None:
        unscored = runner.values.count(None)
        if unscored / self.num_examples > self.max_unscored or unscored == self.num_examples:
            raise EvaluationError(
                f"{unscored} of {self.num_examples} val examples stayed unscored with one prompt; "
                f"evaluation.max_unscored tolerates a share of {self.max_unscored:g}, and never all; "
                f"look at the endpoint's errors, or raise it"
            )


@dataclass(slots=True)
class _Runner:
    """A candidate in the race; its values are in the order in which examples are asked."""

    prompt: Prompt
    values: list[float | None] = field(default_factory=list[float | None])
    spending: Spending = field(default_factory=Spending)

    def take(self, evaluation: Evaluation) -> None:
        """Add a block."""
        self.values += evaluation.score.values_E
        self.spending += evaluation.spending

    def scored(self) -> list[float]:
        """The values that are known."""
        return [value for value in self.values if value is not None]

    def mean(self) -> float:
        """So far; below all others where nothing is known."""
        mean = Score(tuple(self.values)).mean
        return -1.0 if isnan(mean) else mean

    def highest(self, num_left: int) -> float:
        """The mean where all that is left is right."""
        scored = self.scored()
        return (sum(scored) + num_left) / (len(scored) + num_left)

    def lowest(self, num_left: int) -> float:
        """The mean where nothing that is left is right."""
        scored = self.scored()
        return sum(scored) / (len(scored) + num_left)

    def leads_over(self, other: _Runner) -> list[float]:
        """The differences to another one's values, where both are known."""
        pairs = zip(self.values, other.values, strict=False)
        return [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]

    def evaluation(self, order_E: Sequence[int], winner: _Runner | None) -> Evaluation:
        """With values in the order of the examples; those that it was not asked are left out."""
        values_E: list[float | None] = [None] * len(order_E)
        for position, value in zip(order_E, self.values, strict=False):
            values_E[position] = value
        num_left_out = len(order_E) - len(self.values)
        partial = Partial(num_left_out, self._estimate(winner)) if num_left_out and winner is not None else None
        return Evaluation(Score(tuple(values_E), partial), self.spending.task, self.spending.judge)

    def _estimate(self, winner: _Runner) -> float:
        """The mean over all examples: the winner's, less its lead on those that both were asked.

        Never above the winner's: on the few that it was asked, the dropped one may have been ahead of it.
        """
        leads = winner.leads_over(self)
        return min(winner.mean(), max(0.0, winner.mean() - fmean(leads))) if leads else 0.0
