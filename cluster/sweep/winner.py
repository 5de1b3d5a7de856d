"""Which trials count as good: the best one, and the front where objectives conflict."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState


def completed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that ran to their end."""
    return [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the highest ``val``, of those that ran to their end; of equals the cheapest, then the first."""
    return min(completed(trials), key=lambda trial: (-trial.values[0], *trial.values[1:], trial.number), default=None)


def pareto_front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that no other beats in one objective without being worse in another, best ``val`` first."""
    known = completed(trials)

    def losses(trial: FrozenTrial) -> tuple[float, ...]:
        return (-trial.values[0], *trial.values[1:])

    def is_dominated(trial: FrozenTrial) -> bool:
        mine = losses(trial)
        return any(
            losses(other) != mine and all(one <= two for one, two in zip(losses(other), mine, strict=True))
            for other in known
        )

    return sorted((trial for trial in known if not is_dominated(trial)), key=losses)
