"""Scorers, which compare an answer with an example's targets, and ``Rubric``, the request to a judge model."""

from __future__ import annotations

from gpo.evaluation.metrics.boolean import BooleanScorer
from gpo.evaluation.metrics.choice import ChoiceScorer
from gpo.evaluation.metrics.custom import CustomScorer, ParsedScorer
from gpo.evaluation.metrics.judge import Rubric
from gpo.evaluation.metrics.number import NumberScorer
from gpo.evaluation.metrics.scorer import Scorer
from gpo.evaluation.metrics.text import ExactScorer, LabelScorer, RougeScorer

__all__ = [
    "BooleanScorer",
    "ChoiceScorer",
    "CustomScorer",
    "ExactScorer",
    "LabelScorer",
    "NumberScorer",
    "ParsedScorer",
    "RougeScorer",
    "Rubric",
    "Scorer",
]
