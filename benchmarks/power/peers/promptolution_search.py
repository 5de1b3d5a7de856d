"""Promptolution's CAPO and EvoPrompt (genetic) with their defaults."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from promptolution.llms.base_llm import BaseLLM  # type: ignore[import-not-found]
from promptolution.optimizers import CAPO, EvoPromptGA  # type: ignore[import-not-found]
from promptolution.predictors.base_predictor import BasePredictor  # type: ignore[import-not-found]
from promptolution.tasks.base_task import BaseTask  # type: ignore[import-not-found]
from promptolution.utils.prompt_creation import (  # type: ignore[import-not-found]
    create_prompts_from_task_description,
)

from benchmarks.power.peers.models import BudgetSpent, OptimizerModel, TaskModel, score
from benchmarks.power.results import Found
from benchmarks.power.structures import Structure, StructuredTask

_GENERATIONS = 5
"""The population is so small that the budget suffices for as many generations without racing."""
_LARGEST_POPULATION = 10
_MOST_STEPS = 1000
"""If new prompts repeat earlier ones, steps cost nothing."""


def search(method: str, structure: Structure, budget: int, seed: int) -> Found:
    """Run a search; a step beyond the budget does not count."""
    random.seed(seed)
    np.random.seed(seed)  # promptolution draws from it
    model, optimizer = TaskModel(StructuredTask(structure, seed), budget), OptimizerModel(seed)
    meta = _Model(lambda text: optimizer.reply([{"role": "user", "content": text}]))
    size = min(_LARGEST_POPULATION, max(2, budget // (_GENERATIONS * structure.num_val)))
    # As promptolution makes a population if it is given none.
    others = [create_prompts_from_task_description(model.initial, meta, n_prompts=1)[0] for _ in range(size - 1)]
    frame = pd.DataFrame(model.examples, columns=["x", "y"])
    parts: dict[str, Any] = {
        "predictor": _Predictor(_Model(lambda text: model.reply(*text.split("\n", 1)), model.require)),
        "task": _Task(frame, "x", "y", task_description=model.initial, seed=seed),
        "meta_llm": meta,
        "initial_prompts": [model.initial, *others],
    }
    # Demonstrations have no effect on these tasks, so CAPO searches for none.
    searching = CAPO(upper_shots=0, df_few_shots=frame[:0], **parts) if method == "capo" else EvoPromptGA(**parts)
    try:
        best = searching.optimize(_MOST_STEPS)[0]
    except BudgetSpent:
        return model.found(model.initial)
    return model.found(best.instruction)


class _Model(BaseLLM):  # type: ignore[misc]
    def __init__(self, reply: Callable[[str], str], require: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._reply, self._require = reply, require

    def _get_response(self, prompts: list[str], system_prompts: list[str]) -> list[str]:
        if self._require is not None:
            self._require(len(prompts))
        return [self._reply(prompt) for prompt in prompts]


class _Predictor(BasePredictor):  # type: ignore[misc]
    def _extract_preds(self, preds: list[str]) -> list[str]:
        return preds


class _Task(BaseTask):  # type: ignore[misc]
    def _evaluate(self, xs: list[str], ys: list[str], preds: list[str]) -> Any:
        return np.array([score(answer, target) for answer, target in zip(preds, ys, strict=True)])
