"""One answer against one example's target.

A scorer is a small class with two methods; ``SCORERS`` names those that a configuration can choose.
"""

from __future__ import annotations

from gpo.scoring.boolean import BooleanScorer
from gpo.scoring.choice import ChoiceScorer
from gpo.scoring.exact import ExactScorer
from gpo.scoring.label import LabelScorer
from gpo.scoring.number import NumberScorer
from gpo.scoring.rouge import RougeScorer
from gpo.scoring.scorer import Scorer

__all__ = [
    "BooleanScorer",
    "ChoiceScorer",
    "ExactScorer",
    "LabelScorer",
    "NumberScorer",
    "RougeScorer",
    "Scorer",
]
