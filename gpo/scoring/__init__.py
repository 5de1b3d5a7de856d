"""One answer against one example's target.

A scorer is a small class with two methods. ``Rubric`` is no scorer: it is what a language model is asked that judges.
"""

from __future__ import annotations

from gpo.scoring.boolean import BooleanScorer
from gpo.scoring.choice import ChoiceScorer
from gpo.scoring.custom import CustomScorer, FunctionReference, ParsedScorer
from gpo.scoring.exact import ExactScorer
from gpo.scoring.label import LabelScorer
from gpo.scoring.number import NumberScorer
from gpo.scoring.rouge import RougeScorer
from gpo.scoring.rubric import Rubric
from gpo.scoring.scorer import Scorer

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
