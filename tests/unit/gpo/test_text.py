from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpo.text import abridged


@given(st.text(max_size=40), st.integers(5, 40))
def test_a_text_is_abridged_to_the_given_length(text: str, max_characters: int) -> None:
    short = abridged(text, max_characters)
    assert short == text if len(text) <= max_characters else len(short) == max_characters


def test_beginning_and_end_are_kept() -> None:
    assert abridged("The long answer ends with 42", 14) == "The l […] h 42"
