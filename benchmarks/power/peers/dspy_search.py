"""DSPy's GEPA and MIPROv2, with their defaults where the budget leaves a choice."""

from __future__ import annotations

from typing import Any

import dspy  # type: ignore[import-not-found]
from dspy.teleprompt import GEPA, MIPROv2  # type: ignore[import-not-found]
from litellm import ModelResponse  # type: ignore[import-not-found]

from benchmarks.power.peers.models import OptimizerModel, TaskModel, score
from benchmarks.power.results import Found
from benchmarks.power.structures import Structure, StructuredTask
from gpo.models.protocol import Message

_MINIBATCH, _FULL_EVERY, _FEWEST_FOR_MINIBATCHES = 35, 5, 50
"""Defaults of MIPROv2: examples in a trial, trials between evaluations on all of ``val``, and the smallest ``val``."""
_TRIALS_OF_CANDIDATE = 1.5
"""Recommended by MIPROv2."""
_EXAMPLES_OF_CANDIDATE = 10
"""Task calls for the examples that are shown when a candidate is written, about."""


def search(method: str, structure: Structure, budget: int, seed: int) -> Found:
    """Run a search."""
    model, optimizer = TaskModel(StructuredTask(structure, seed), budget), OptimizerModel(seed)
    dspy.configure(lm=_Model(optimizer), disable_history=True)
    examples = [dspy.Example(text=text, label=target).with_inputs("text") for text, target in model.examples]
    run = _gepa if method == "dspy_gepa" else _mipro
    return model.best_within_budget(run(program(model), examples, budget, seed))


def program(model: TaskModel) -> Any:
    """The program whose instructions are optimized."""

    class Classify(dspy.Predict):  # type: ignore[misc]
        """Asks the task model without writing and parsing messages, which takes most of the time."""

        def forward(self, **inputs: str) -> Any:
            prediction = dspy.Prediction(label=model.reply(self.signature.instructions, inputs["text"]))
            if dspy.settings.trace is not None:
                dspy.settings.trace.append((self, inputs, prediction))
            return prediction

    return Classify(dspy.Signature("text -> label", model.initial))


def _gepa(program: Any, examples: list[Any], budget: int, seed: int) -> list[tuple[str, float]]:
    gepa = GEPA(
        metric=_metric,
        max_metric_calls=budget,
        reflection_lm=dspy.settings.lm,
        num_threads=1,
        track_stats=True,
        warn_on_score_mismatch=False,
        seed=seed,
    )
    details = gepa.compile(program, trainset=examples, valset=examples).detailed_results
    prompts = [candidate.signature.instructions for candidate in details.candidates]
    return list(zip(prompts, details.val_aggregate_scores, strict=True))


def _mipro(program: Any, examples: list[Any], budget: int, seed: int) -> list[tuple[str, float]]:
    # Demonstrations have no effect on these tasks, so none are searched for.
    uses_minibatches = len(examples) > _FEWEST_FOR_MINIBATCHES
    num_trials = _num_trials(len(examples), budget, uses_minibatches=uses_minibatches)
    mipro = MIPROv2(
        metric=_metric,
        auto=None,
        num_candidates=max(2, round(num_trials / _TRIALS_OF_CANDIDATE)),
        num_threads=1,
        max_bootstrapped_demos=0,
        max_labeled_demos=0,
        seed=seed + 1,  # 0 stands for the default
    )
    best = mipro.compile(program, trainset=examples, valset=examples, num_trials=num_trials, minibatch=uses_minibatches)
    # The program that MIPROv2 returns comes first, if it was evaluated within the budget.
    others = [(one["program"].signature.instructions, one["score"]) for one in best.candidate_programs]
    return [(best.signature.instructions, max(score for _, score in others)), *others]


def _num_trials(num_val: int, budget: int, *, uses_minibatches: bool) -> int:
    """The largest number of trials that fits into the budget, about; at least 1."""

    def cost(trials: int) -> float:
        evaluations = 1 + (-(-trials // _FULL_EVERY) if uses_minibatches else trials)
        in_trials = trials * (_MINIBATCH if uses_minibatches else 0)
        return num_val * evaluations + in_trials + _EXAMPLES_OF_CANDIDATE * trials / _TRIALS_OF_CANDIDATE

    return max((trials for trials in range(1, budget) if cost(trials) <= budget), default=1)


def _metric(example: Any, prediction: Any, *_: object, **__: object) -> float:
    return score(str(prediction.label), str(example.label))


class _Model(dspy.BaseLM):  # type: ignore[misc]
    def __init__(self, optimizer: OptimizerModel) -> None:
        super().__init__("simulated", cache=False)
        self._optimizer = optimizer

    def forward(self, prompt: str | None = None, messages: list[Message] | None = None, **_: object) -> Any:
        text = self._optimizer.reply(messages or [{"role": "user", "content": prompt or ""}])
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return ModelResponse(choices=[choice], model="simulated", usage={})

    def copy(self, **_: object) -> Any:
        return self

    def __deepcopy__(self, _: object) -> Any:
        return self
