from __future__ import annotations

import pytest

from gpo.evaluation.answer_format import Position
from gpo.strategies.meta_prompt import Brief, FullMetaPrompt
from gpo.strategies.refinement import Editing, Generation, Paraphrase, Refinement
from gpo.testing.contracts import RefinementContract
from gpo.testing.samples import candidate
from gpo.trajectory import Direction


class TestGeneration(RefinementContract):
    def make(self) -> Refinement:
        return Generation()


class TestEditing(RefinementContract):
    def make(self) -> Refinement:
        return Editing()


class TestParaphrase(RefinementContract):
    def make(self) -> Refinement:
        return Paraphrase()


def asked(refinement: Refinement, step_size: int | None) -> str:
    brief = Brief(candidate("Which desk?", 0.5), Direction(), step_size, [], Position.SYSTEM)
    (message,) = FullMetaPrompt(refinement).messages(brief)
    return message["content"].partition("## What to do")[2]


@pytest.mark.parametrize("refinement", [Generation(), Editing(), Paraphrase()])
def test_the_bound_is_stated_where_there_is_one(refinement: Refinement) -> None:
    assert "Change at most 7 words" in asked(refinement, 7)
    assert "Change at most" not in asked(refinement, None)


@pytest.mark.parametrize("refinement", [Generation(), Editing(), Paraphrase()])
def test_the_position_of_the_prompt_is_stated_last(refinement: Refinement) -> None:
    assert asked(refinement, 7).endswith("between <START> and <END>, and nothing else.")


def test_each_refinement_has_its_own_request() -> None:
    assert "Write one new prompt that serves the task better." in asked(Generation(), 7)
    assert "in other words" in asked(Paraphrase(), 7)
    assert "edit just these words" in asked(Editing(), 7)
    assert "Leave the rest as it stands." in asked(Editing(), None)
