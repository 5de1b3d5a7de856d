"""gepa's reflective mutation with its default adapter and its defaults."""

from __future__ import annotations

from typing import Any

import gepa  # type: ignore[import-not-found]
from gepa.adapters.default_adapter.default_adapter import (  # type: ignore[import-not-found]
    DefaultAdapter,
    EvaluationResult,
)

from benchmarks.power.peers.models import OptimizerModel, TaskModel, score
from benchmarks.power.results import Found
from benchmarks.power.structures import Structure, StructuredTask


def search(method: str, structure: Structure, budget: int, seed: int) -> Found:
    """Run a search."""
    del method
    model, optimizer = TaskModel(StructuredTask(structure, seed), budget), OptimizerModel(seed)
    data = rows(model)
    result = gepa.optimize(
        seed_candidate={"prompt": model.initial},
        trainset=data,
        valset=data,
        adapter=adapter(model),
        reflection_lm=lambda request: optimizer.reply([{"role": "user", "content": request}]),
        max_metric_calls=budget,
        seed=seed,
    )
    prompts = [candidate["prompt"] for candidate in result.candidates]
    return model.best_within_budget(zip(prompts, result.val_aggregate_scores, strict=True))


def adapter(model: TaskModel) -> Any:
    """Gepa's default adapter for the task."""
    return DefaultAdapter(
        model=lambda messages: model.reply(messages[0]["content"], messages[1]["content"]), evaluator=_evaluated
    )


def rows(model: TaskModel) -> list[dict[str, Any]]:
    """The ``val`` examples, as the adapter gets them."""
    return [{"input": text, "additional_context": {}, "answer": target} for text, target in model.examples]


def _evaluated(data: Any, response: str) -> Any:
    """As gepa's own evaluator, with a share of the score for an answer that is partly right."""
    value, answer = score(response, data["answer"]), data["answer"]
    if value == 1.0:
        return EvaluationResult(value, f"The generated response is correct. The correct answer is '{answer}'.")
    return EvaluationResult(value, f"The generated response is incorrect. The correct answer is '{answer}'.")
