from __future__ import annotations

from gpo.strategies.refinement import Editing, Generation, Paraphrase, Refinement
from gpo.testing.contracts import RefinementContract


class TestGeneration(RefinementContract):
    def make(self) -> Refinement:
        return Generation()


class TestEditing(RefinementContract):
    def make(self) -> Refinement:
        return Editing()


class TestParaphrase(RefinementContract):
    def make(self) -> Refinement:
        return Paraphrase()
