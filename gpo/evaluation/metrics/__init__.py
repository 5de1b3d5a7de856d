"""One answer against one example's target.

A scorer is a small class with two methods. ``Rubric`` is no scorer: it is what a language model is asked that judges.
"""

from __future__ import annotations

from gpo.evaluation.metrics.boolean import BooleanScorer
from gpo.evaluation.metrics.choice import ChoiceScorer
from gpo.evaluation.metrics.custom import CustomScorer, FunctionReference, ParsedScorer
from gpo.evaluation.metrics.judge import Rubric
from gpo.evaluation.metrics.number import NumberScorer
from gpo.evaluation.metrics.scorer import Scorer
from gpo.evaluation.metrics.text import ExactScorer, LabelScorer, RougeScorer

__all__ = [
    "BooleanScorer",
    "ChoiceScorer",
    "CustomScorer",
    "ExactScorer",
    "FunctionReference",
    "LabelScorer",
    "NumberScorer",
    "ParsedScorer",
    "RougeScorer",
    "Rubric",
    "Scorer",
]
