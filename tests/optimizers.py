"""Optimizers of fakes, for tests of what runs them."""

from __future__ import annotations

from typing import Any

from gpo.optimizer import GPO
from gpo.prompt import Prompt
from gpo.strategies.acceptance import BestOfStep
from gpo.strategies.batches import TrainBatches
from gpo.strategies.reflection import NoReflection
from gpo.strategies.retrieval import RecencyRetriever
from gpo.strategies.schedule import FixedSchedule
from gpo.strategies.summary import NoSummary
from gpo.testing.fakes import FakeEvaluator, FakeProposer


def by_length(prompt: Prompt) -> list[float]:
    """A score that rises with the number of words."""
    return [len(prompt.words) / 10]


def fake_optimizer(**settings: Any) -> GPO:
    """Two steps of two candidates by default, each of which appends a number to the current prompt."""
    defaults: dict[str, Any] = {
        "retriever": RecencyRetriever(),
        "reflector": NoReflection(),
        "summarizer": NoSummary(),
        "schedule": FixedSchedule(size=5),
        "proposer": FakeProposer(lambda current, n, _: [f"{current.prompt.text} {index}" for index in range(n)]),
        "evaluator": FakeEvaluator(by_length),
        "acceptance": BestOfStep(),
        "num_steps": 2,
        "num_candidates": 2,
        "num_neighbours": 1,
        "train": (),
        "batches": TrainBatches(1, 1, seed=0),
        "num_exemplars": 0,
        "seed": 0,
    }
    return GPO(**{**defaults, **settings})
