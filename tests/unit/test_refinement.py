from __future__ import annotations

import pytest

from gpo.answering import Position
from gpo.meta_prompt import Direction, FullMetaPrompt
from gpo.refinement import Editing, Generation, Refinement
from gpo.testing.samples import candidate


def asked(refinement: Refinement, step_size: int | None) -> str:
    direction = Direction(candidate("Which desk?", 0.5), [], step_size, [], Position.SYSTEM)
    (message,) = FullMetaPrompt(refinement).messages(direction)
    return message["content"].partition("## What to do")[2]


@pytest.mark.parametrize("refinement", [Generation(), Editing()])
def test_the_bound_is_stated_where_there_is_one(refinement: Refinement) -> None:
    assert "Change at most 7 words" in asked(refinement, 7)
    assert "Change at most" not in asked(refinement, None)


@pytest.mark.parametrize("refinement", [Generation(), Editing()])
def test_where_the_prompt_goes_is_stated_last(refinement: Refinement) -> None:
    assert asked(refinement, 7).endswith("between <START> and <END>, and nothing else.")


def test_the_two_ask_for_different_things() -> None:
    assert "write one new prompt" in asked(Generation(), 7)
    assert "edit just these words" in asked(Editing(), 7)
    assert "Leave the rest as it stands." in asked(Editing(), None)
