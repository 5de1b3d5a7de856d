from __future__ import annotations

from gpo.scoring.adaptive import Adaptive
from gpo.scoring.candidates import CandidateScoring, FullScoring
from gpo.scoring.racing import Racing
from gpo.testing.contracts import ScoringContract


class TestFull(ScoringContract):
    def make(self) -> CandidateScoring:
        return FullScoring()


class TestRacing(ScoringContract):
    def make(self) -> CandidateScoring:
        return Racing(num_examples=self.num_val, block=5, alpha=0.1, max_unscored=0.1, seed=0)


class TestAdaptive(ScoringContract):
    def make(self) -> CandidateScoring:
        return Adaptive(num_examples=self.num_val, block=3, most=9, max_unscored=0.1, seed=0)
