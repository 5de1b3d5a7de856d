from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.prompt import Prompt, edit_distance

# Few distinct words, so that prompts share some.
prompts = st.lists(st.sampled_from(["let", "us", "think", "step", "by", "step."]), max_size=12).map(
    lambda words: Prompt(" ".join(words))
)


@given(st.text(), st.text())
def test_the_id_depends_on_the_text_alone(one: str, other: str) -> None:
    assert Prompt(one).id == Prompt(one).id
    assert (Prompt(one).id == Prompt(other).id) == (one == other)


def test_the_id_is_the_same_in_every_process() -> None:
    assert Prompt("Let's think step by step.").id == "0323a010cada"


@pytest.mark.parametrize(
    ("before", "after", "distance"),
    [
        ("", "", 0),
        ("", "two words", 2),
        ("a b c", "a c", 1),
        ("a b c", "a x c", 1),
        ("a b c", "c b a", 2),
        ("step by step", "Step by step", 1),
        ("step by step", " step\tby\n\nstep ", 0),
        ("Think.", "Think", 1),
    ],
)
def test_known_distances(before: str, after: str, distance: int) -> None:
    assert edit_distance(Prompt(before), Prompt(after)) == distance


@given(prompts, prompts)
def test_the_distance_is_symmetric_and_zero_only_for_equal_words(one: Prompt, other: Prompt) -> None:
    assert edit_distance(one, other) == edit_distance(other, one)
    assert (edit_distance(one, other) == 0) == (one.words == other.words)
