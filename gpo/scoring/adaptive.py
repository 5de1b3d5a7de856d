"""Adaptive scoring: candidates answer the examples that tell most about them, as in computerized adaptive testing.

Examples differ in difficulty, and most of them tell nothing about a given prompt, because nearly every prompt gets them
right, or wrong. The response model of ``gpo.scoring.abilities`` learns the difficulties while the search runs. It also
makes scores comparable that rest on different examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import ceil, log, sqrt
from random import Random
from typing import TYPE_CHECKING

from gpo.data.task import Split
from gpo.errors import PromptUnscored
from gpo.evaluation.evaluator import Evaluation, Evaluator
from gpo.prompt import Prompt
from gpo.runtime.concurrency import gather
from gpo.score import Flaws, Partial, Score
from gpo.scoring.candidates import Outcome, Unanswered, evaluated, too_many_unscored
from gpo.trajectory import Candidate, Spending, Trajectory

if TYPE_CHECKING:
    from gpo.scoring.abilities import Abilities, Variances

_SHARPNESS = 4.0
"""How strongly informative examples are preferred: an example is drawn with odds of its information to this power."""
_MOST_ROWS = 96
"""Prompts that the model is fitted to, at most: a fit to 100 prompts and 100 examples takes some 10 ms."""
_MOST_BEST = 24
"""How many of these are the best ones, and how many the last ones that were current."""

_MOST_CONFIRMED = 3
"""Once so many prompts have answered all of ``val``, no other one is confirmed that is merely close to the best."""

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Scores candidates on few, informative examples of ``val``, and confirms the best prompt on all of it.

    The initial prompt answers ``most`` random examples. Each candidate of a step first answers the same ``block``
    examples, which tell most about prompts as able as the current one. Then the model is fitted. Candidates whose
    estimated mean plus one standard error is below the leader's mean are dropped, and at most half of the rest answer
    another block, which tells most about prompts as able as the best of them. Blocks grow as candidates drop out. This
    continues until none is left, or until they have answered ``most`` examples. The leader is the prompt of the whole
    search with the highest mean minus one standard error. In the blocks of a step, each target has about the share
    that it has in ``val``: a candidate that helps with one label only is otherwise judged by the labels that its few
    examples happen to have.

    Meanwhile, a current prompt that the last step has not replaced answers another ``block`` of random examples.
    Otherwise a prompt could stay the current one for many steps by luck alone.

    The score of a prompt is an estimate of its mean on all of ``val``: known answers count as they are, the others as
    the model expects them. After each step, all estimates of the trajectory are renewed, so they come from the same
    fit. When the search is over, the best prompt answers the rest of ``val``, and so does the second best one if the
    model cannot tell the two apart.

    Draws depend on the seed and the number of the step alone, and decisions on answers alone, so that a resumed search
    repeats them.

    Attributes:
        num_examples: size of ``val``, ≥ 1.
        block: number of examples that a candidate answers first, ≥ 1.
        most: number of examples that the initial prompt answers, and a candidate at most, ≥ 1.
        max_unscored: share of examples in [0, 1] that may stay unscored for a prompt.
        seed: determines which examples are drawn.
        targets: the right answer of each example; empty if all are different, or not known.
    """

    num_examples: int
    block: int
    most: int
    max_unscored: float
    seed: int
    targets: tuple[str, ...] = ()

    async def first(self, evaluator: Evaluator, prompt: Prompt) -> Evaluation:
        indices = self.initial_block
        if len(indices) == self.num_examples:
            (evaluation,) = await evaluator.evaluate([prompt], Split.VAL)
            return evaluation
        (evaluation,) = await evaluator.evaluate([prompt], Split.VAL, indices)
        runner = _Runner(prompt, self)
        runner.take(indices, evaluation)
        runner.require_a_value()
        if runner.failure is not None:
            raise runner.failure
        # As if one more answer were right and one wrong: the standard error of equal answers would be 0.
        scored = evaluation.score.scored
        share, num = (sum(scored) + 1) / (len(scored) + 2), len(scored) + 2
        return runner.evaluation((evaluation.score.mean, sqrt(share * (1 - share) / num)))

    @property
    def initial_block(self) -> list[int]:
        """The examples that the initial prompt answers."""
        num_asked = min(self.most, self.num_examples)
        return Random(f"{self.seed}/adaptive").sample(range(self.num_examples), num_asked)

    def next_block(self, num_asked: int, num_candidates: int, num_left: int) -> int:
        """The size of the next block; later rounds have about as many calls as the second, so the endpoint stays busy.

        Args:
            num_asked: examples that the candidates have answered.
            num_candidates, num_left: at the beginning of the step, and now; ≥ 1.
        """
        size = self.block if not num_asked else self.block * max(1, ceil(num_candidates / 2) // num_left)
        return min(size, min(self.most, self.num_examples) - num_asked)

    def step(self, trajectory: Trajectory) -> AdaptiveStep:
        return AdaptiveStep(self, trajectory)

    def recheck(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        *before, current = trajectory.currents
        stayed = bool(before) and before[-1].prompt == current.prompt
        # Which examples have failed is not known, so a prompt with failed calls is not asked again.
        if not stayed or current.score.partial is None or current.score.num_unscored:
            return ()
        unanswered = Unanswered.of(current).indices
        draw = Random(f"{self.seed}/{len(trajectory.steps)}/recheck")
        return [Unanswered(current, tuple(draw.sample(unanswered, min(self.block, len(unanswered)))))]

    def unconfirmed(self, trajectory: Trajectory) -> Sequence[Unanswered]:
        best = trajectory.best
        num_confirmed = sum(one.score.partial is None for one in trajectory.history[1:])
        if best.is_dropped or (best.score.partial is None and num_confirmed >= _MOST_CONFIRMED):
            return ()
        others = [one for one in trajectory.history if one.prompt != best.prompt and not one.is_dropped]
        second = max(others, key=lambda candidate: candidate.score.mean, default=best)
        is_close = second.score.upper > best.score.mean
        chosen = dict.fromkeys([best, second] if is_close else [best])
        return [Unanswered.of(candidate) for candidate in chosen if candidate.score.partial is not None]

    def renewed(
        self, trajectory: Trajectory, candidates: Sequence[Candidate] = ()
    ) -> tuple[Trajectory, Sequence[Candidate]]:
        fitted = fit_search(trajectory, {candidate.prompt: candidate.score.values_E for candidate in candidates})
        scores = {
            candidate.prompt: _renewed(candidate.score, fitted.estimates[candidate.prompt])
            for candidate in (*trajectory.history, *candidates)
            if candidate.prompt in fitted.rows
        }
        new = [replace(candidate, score=scores[candidate.prompt]) for candidate in candidates]
        return trajectory.rescored(scores), new


@dataclass(frozen=True)
class AdaptiveStep:
    """Scores the candidates of one step. The variances of the model are those that fit before the step."""

    scoring: Adaptive
    trajectory: Trajectory

    @cached_property
    def _before(self) -> FittedSearch:
        return fit_search(self.trajectory)

    @cached_property
    def _first_block(self) -> list[int]:
        row = self._before.rows[self.trajectory.current.prompt]
        return self._drawn(self._before.model, row, [], self.scoring.next_block(0, 1, 1))

    def _drawn(self, model: Abilities, row: int, asked: Sequence[int], size: int) -> list[int]:
        """Examples that are not asked yet, drawn with odds that grow with their information about a prompt.

        They are drawn without replacement. Those with targets of which the smallest share was drawn in the step
        come first.
        """
        targets: Sequence[object] = self.scoring.targets or range(self.scoring.num_examples)
        among = sorted(set(range(self.scoring.num_examples)) - set(asked))
        draw = Random(f"{self.scoring.seed}/{len(self.trajectory.steps)}/{len(among)}/adaptive")
        information_E = model.information(row)
        # The largest of log-odds with Gumbel noise are such a draw.
        keys = {
            index: _SHARPNESS * log(information_E[index]) - log(max(draw.expovariate(1.0), 1e-12)) for index in among
        }
        totals, num_drawn = Counter(targets), Counter(targets[index] for index in asked)
        shares = dict[int, float]()
        for index in sorted(among, key=lambda index: -keys[index]):
            target = targets[index]
            shares[index] = (num_drawn[target] + 0.5) / totals[target]
            num_drawn[target] += 1
        return sorted(sorted(shares, key=shares.__getitem__)[:size])

    async def begin(self, evaluator: Evaluator, prompt: Prompt, settled: Callable[[], object]) -> Evaluation:
        (evaluation,) = await evaluator.evaluate([prompt], Split.VAL, self._first_block)
        return evaluation

    async def finish(
        self,
        evaluator: Evaluator,
        prompts: Sequence[Prompt],
        begun: Sequence[Evaluation],
        settled: Callable[[], object],
    ) -> Sequence[Outcome]:
        scoring = self.scoring
        runners = [_Runner(prompt, scoring) for prompt in prompts]
        most = min(scoring.most, scoring.num_examples)
        left, outcomes, block = runners, list[Outcome](begun), self._first_block
        asked: list[int] = []
        num_kept, fitted = len(runners), self._before
        while left:
            asked += block
            for runner, outcome in zip(left, outcomes, strict=True):
                runner.take(block, outcome)
            fitted, num_kept = self._fitted(runners), ceil(num_kept / 2)
            remaining = _remaining(left, fitted, num_kept) if len(asked) < most else []
            for _ in range(len(left) - len(remaining)):
                settled()
            left = remaining
            if left:
                size = scoring.next_block(len(asked), len(runners), len(left))
                block = self._drawn(fitted.model, fitted.rows[left[0].prompt], asked, size)
                outcomes = await gather(evaluated(evaluator, runner.prompt, block) for runner in left)
        for runner in runners:
            runner.require_a_value()
        return [runner.failure or runner.evaluation(fitted.estimates[runner.prompt]) for runner in runners]

    def _fitted(self, runners: Sequence[_Runner]) -> FittedSearch:
        answers = {runner.prompt: runner.values for runner in runners if runner.failure is None}
        return fit_search(self.trajectory, answers, self._before.model.variances)


def _remaining(left: Sequence[_Runner], fitted: FittedSearch, most: int) -> list[_Runner]:
    """The candidates that go on, best first."""
    estimates = fitted.estimates
    leader = max(estimates, key=lambda prompt: estimates[prompt][0] - estimates[prompt][1])
    bound = estimates[leader][0]
    in_play = [
        runner
        for runner in left
        if runner.failure is None and (runner.prompt == leader or sum(estimates[runner.prompt]) >= bound)
    ]
    return sorted(in_play, key=lambda runner: -estimates[runner.prompt][0])[:most]


# -- the response model of a search -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FittedSearch:
    """The response model, fitted to the answers of a search; ``rows`` is prompt → row."""

    model: Abilities
    rows: Mapping[Prompt, int]

    @cached_property
    def estimates(self) -> Mapping[Prompt, tuple[float, float]]:
        """Prompt → its estimated mean on all of ``val``, and the standard error of the estimate."""
        means, errors = self.model.means(list(self.rows.values()))
        return {prompt: (float(means[row]), float(errors[row])) for prompt, row in self.rows.items()}


def fit_search(
    trajectory: Trajectory, candidates: Mapping[Prompt, Values] | None = None, variances: Variances | None = None
) -> FittedSearch:
    """Fit the response model to the answers of a search, and to those of the current step's candidates.

    Args:
        candidates: prompt → values; the prompts were made from the current one.
        variances: of the model; they are estimated if they are not given.
    """
    import numpy as np  # the configuration imports this module, and most commands need no NumPy

    kept, parents = _kept(trajectory)
    rows = {candidate.prompt: row for row, candidate in enumerate(kept)}
    values = [candidate.score.values_E for candidate in kept]
    current = rows[trajectory.current.prompt]
    for prompt, its_values in (candidates or {}).items():
        rows[prompt] = len(values)
        values.append(tuple(its_values))
        parents.append(current)
    matrix = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=np.float64)
    return FittedSearch(_fitted_once(matrix.tobytes(), tuple(parents), variances), rows)


@lru_cache(maxsize=16)
def _fitted_once(values_PE: bytes, parents_P: tuple[int, ...], variances: Variances | None) -> Abilities:
    """The model of these answers. The end of a step, the next step and the summary ask for the same one."""
    import numpy as np

    from gpo.scoring.abilities import Answers, fit

    matrix = np.frombuffer(values_PE, dtype=np.float64).reshape(len(parents_P), -1)
    return fit(Answers(matrix, np.array(parents_P, dtype=np.intp)), variances)


def _kept(trajectory: Trajectory) -> tuple[list[Candidate], list[int]]:
    """The candidates that the model is fitted to, and for each the row of its nearest ancestor; -1 for the first.

    In a long search, these are the initial prompt, the best ones, the last ones that were current, and the newest ones.
    """
    history = trajectory.history
    index_of = {candidate.prompt: index for index, candidate in enumerate(history)}
    currents = [index_of[candidate.prompt] for candidate in trajectory.currents]
    parents = [-1]
    for current, step in zip(currents, trajectory.steps, strict=False):
        parents += [current] * len(step.candidates)
    best = sorted(range(len(history)), key=lambda index: -history[index].score.lower)
    chosen = dict.fromkeys((0, *currents[-_MOST_BEST:], *best[:_MOST_BEST], *reversed(range(len(history)))))
    kept = sorted(list(chosen)[:_MOST_ROWS])
    rows = {index: row for row, index in enumerate(kept)}

    def ancestor(index: int) -> int:
        parent = parents[index]
        while parent >= 0 and parent not in rows:
            parent = parents[parent]
        return rows.get(parent, -1)

    return [history[index] for index in kept], [ancestor(index) for index in kept]


def _renewed(score: Score, estimate: tuple[float, float]) -> Score:
    """The score with this estimate; a complete score needs none, and the prompt of a dropped one stays dropped."""
    if score.partial is None or score.partial.stderr is None:
        return score
    mean, stderr = estimate
    return replace(score, partial=replace(score.partial, mean=mean, stderr=stderr))


@dataclass(slots=True)
class _Runner:
    """A prompt that is being scored; ``values`` are in the order of the examples, ``None`` where unknown."""

    prompt: Prompt
    scoring: Adaptive
    values: list[float | None] = field(init=False)
    num_asked: int = 0
    spending: Spending = field(default_factory=Spending)
    flaws: Flaws = field(default_factory=Flaws)
    failure: PromptUnscored | None = None

    def __post_init__(self) -> None:
        self.values = [None] * self.scoring.num_examples

    def take(self, indices: Sequence[int], outcome: Outcome) -> None:
        """Note the outcome on these examples."""
        if isinstance(outcome, PromptUnscored):
            spent = outcome.spending if isinstance(outcome.spending, Spending) else Spending()
            self.failure = PromptUnscored(str(outcome), outcome.is_refused, self.spending + spent)
            return
        for index, value in zip(indices, outcome.score.values_E, strict=True):
            self.values[index] = value
        self.num_asked += len(indices)
        self.spending += outcome.spending
        self.flaws += outcome.score.flaws
        if self.num_unscored > self.scoring.max_unscored * len(self.values):
            self.failure = self._too_many()

    @property
    def num_unscored(self) -> int:
        """The number of examples whose call failed."""
        return self.num_asked - sum(value is not None for value in self.values)

    def require_a_value(self) -> None:
        """Fail if not a single example is scored."""
        if self.failure is None and self.num_unscored == self.num_asked:
            self.failure = self._too_many()

    def _too_many(self) -> PromptUnscored:
        return too_many_unscored(self.num_unscored, len(self.values), self.scoring.max_unscored, self.spending)

    def evaluation(self, estimate: tuple[float, float]) -> Evaluation:
        """The evaluation, with this estimate of the mean and its standard error if some examples were left out."""
        num_left_out = len(self.values) - self.num_asked
        partial = Partial(num_left_out, *estimate) if num_left_out else None
        score = Score(tuple(self.values), partial, self.flaws)
        return Evaluation(score, self.spending.task, self.spending.judge)
