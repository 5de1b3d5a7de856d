"""DSPy's GEPA and MIPROv2, with their defaults where the budget leaves a choice."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import dspy  # type: ignore[import-not-found]
from dspy.teleprompt import GEPA, MIPROv2  # type: ignore[import-not-found]
from litellm import ModelResponse  # type: ignore[import-not-found]

from benchmarks.power.peers.models import OptimizerModel, TaskModel, score
from benchmarks.power.results import Found
from benchmarks.power.structures import Structure, StructuredTask
from gpo.models.protocol import Message

_OBJECTIVE = re.compile(r"your objective is:\s*(.*)\Z", re.DOTALL)
_TEXT = re.compile(r"\[\[ ## text ## \]\]\n(.*?)\n", re.DOTALL)
_MINIBATCH, _FULL_EVERY, _FEWEST_FOR_MINIBATCHES = 35, 5, 50
"""Defaults of MIPROv2: examples in a trial, trials between evaluations on all of ``val``, and the smallest ``val``."""


def search(method: str, structure: Structure, budget: int, seed: int) -> Found:
    """Run a search."""
    model, optimizer = TaskModel(StructuredTask(structure, seed), budget), OptimizerModel(seed)
    dspy.configure(lm=_Model(lambda messages: _labelled(model, messages)), disable_history=True)
    program = dspy.Predict(dspy.Signature("text -> label", model.initial))
    examples = [dspy.Example(text=text, label=target).with_inputs("text") for text, target in model.examples]
    run = _gepa if method == "dspy_gepa" else _mipro
    return model.best_within_budget(run(program, examples, _Model(optimizer.reply), budget, seed))


def _gepa(program: Any, examples: list[Any], optimizer: Any, budget: int, seed: int) -> list[tuple[str, float]]:
    gepa = GEPA(
        metric=_metric,
        max_metric_calls=budget,
        reflection_lm=optimizer,
        num_threads=1,
        track_stats=True,
        warn_on_score_mismatch=False,
        seed=seed,
    )
    details = gepa.compile(program, trainset=examples, valset=examples).detailed_results
    prompts = [candidate.signature.instructions for candidate in details.candidates]
    return list(zip(prompts, details.val_aggregate_scores, strict=True))


def _mipro(program: Any, examples: list[Any], optimizer: Any, budget: int, seed: int) -> list[tuple[str, float]]:
    # Demonstrations have no effect on these tasks, so none are searched for.
    uses_minibatches = len(examples) > _FEWEST_FOR_MINIBATCHES
    num_trials = _num_trials(len(examples), budget, uses_minibatches=uses_minibatches)
    mipro = MIPROv2(
        metric=_metric,
        prompt_model=optimizer,
        auto=None,
        # MIPROv2 recommends 1.5 trials for each candidate.
        num_candidates=max(2, round(num_trials / 1.5)),
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
    """The largest number of trials that fits into the budget; at least 1. Demonstrations for requests are cheap."""

    def cost(trials: int) -> int:
        if not uses_minibatches:
            return num_val * (1 + trials)
        return num_val * (1 + -(-trials // _FULL_EVERY)) + _MINIBATCH * trials

    bootstrapping = 2 * round(0.01 * budget) + 10
    return max(1, max((trials for trials in range(budget) if cost(trials) <= budget - bootstrapping), default=1))


def _metric(example: Any, prediction: Any, *_: object, **__: object) -> float:
    return score(str(prediction.label), str(example.label))


def _labelled(model: TaskModel, messages: Sequence[Message]) -> str:
    prompt, text = _OBJECTIVE.search(messages[0]["content"]), _TEXT.search(messages[-1]["content"])
    if prompt is None or text is None:
        raise ValueError(f"not a question: {messages}")
    return f"[[ ## label ## ]]\n{model.reply(prompt[1], text[1])}\n\n[[ ## completed ## ]]"


class _Model(dspy.BaseLM):  # type: ignore[misc]
    def __init__(self, reply: Callable[[Sequence[Message]], str]) -> None:
        super().__init__("simulated", cache=False)
        self._reply = reply

    def forward(self, prompt: str | None = None, messages: list[Message] | None = None, **_: object) -> Any:
        text = self._reply(messages or [{"role": "user", "content": prompt or ""}])
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return ModelResponse(choices=[choice], model="simulated", usage={})

    def copy(self, **_: object) -> Any:
        return self

    def __deepcopy__(self, _: object) -> Any:
        return self
