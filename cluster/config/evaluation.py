"""Section ``evaluation``: how prompts are scored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from cluster.config.section import Section
from gpo.scoring.candidates import CandidateScoring, FullScoring
from gpo.scoring.racing import Racing


class RacingConfig(Section):
    """Candidates answer ``val`` block by block; those that cannot become the best of their step are dropped."""

    block: Annotated[int, Field(ge=2)] = 10
    """Examples of the first block. Later ones grow as candidates are dropped, so that each round is as many calls."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Level of the tests after each block, corrected for the number of candidates: about the share of steps that lose
    their best where eight candidates are equally good, which is the hardest case. Smaller is safer and saves less."""


class EvaluationConfig(Section):
    """How prompts are scored."""

    val_size: PositiveInt | None = None
    """Score on at most so many ``val`` examples, always the same ones."""
    test_size: PositiveInt | None = None
    """Likewise for ``test``."""
    max_unscored: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of an evaluation's examples that may stay unscored because their calls failed for good."""
    racing: RacingConfig | None = None
    """Drop candidates before they have answered all of ``val``; null scores every candidate in full."""

    def build_scoring(self, num_val: int, seed: int) -> CandidateScoring:
        """How candidates are scored on ``num_val`` examples."""
        if self.racing is None:
            return FullScoring()
        return Racing(
            num_examples=num_val,
            block=self.racing.block,
            alpha=self.racing.alpha,
            max_unscored=self.max_unscored,
            seed=seed,
        )
