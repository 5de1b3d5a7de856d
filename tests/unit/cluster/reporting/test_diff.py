from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.reporting.diff import Segment, changes, word_diff, words

TEXTS = st.text(alphabet=st.sampled_from("ab <\n\t\u00a0\x1c\ufeff"), max_size=30)


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("a b c", "a b c", [("same", "a b c")]),
        ("a b c", "a x c", [("same", "a"), ("deleted", " b"), ("inserted", " x"), ("same", " c")]),
        ("a b", "a b c", [("same", "a b"), ("inserted", " c")]),
        ("a b c", "c", [("deleted", "a b"), ("same", "c")]),
        ("", "a", [("inserted", "a")]),
        ("a", "", [("deleted", "a")]),
        ("", "", []),
        ("a b", "a\nb", [("same", "a\nb")]),
        ("a b c d", "a x y d", [("same", "a"), ("deleted", " b c"), ("inserted", " x y"), ("same", " d")]),
    ],
)
def test_a_diff_shows_what_is_lost_before_what_stands_in_its_place(
    before: str, after: str, shown: list[tuple[str, str]]
) -> None:
    assert [(segment.change, segment.text) for segment in word_diff(before, after)] == shown


@given(TEXTS)
def test_words_are_the_text(text: str) -> None:
    assert "".join(words(text)) == text


@given(TEXTS, TEXTS)
def test_without_what_is_deleted_a_diff_is_the_new_text(before: str, after: str) -> None:
    segments = word_diff(before, after)
    assert "".join(segment.text for segment in segments if segment.change != "deleted") == after
    old = "".join(segment.text for segment in segments if segment.change != "inserted")
    assert [word.strip() for word in words(old)] == [word.strip() for word in words(before)]
    assert Segment("same", "") not in segments


@given(TEXTS, TEXTS)
def test_places_are_in_order_and_apart(before: str, after: str) -> None:
    places = changes(before, after)
    quadruples = list(zip(*(iter(places),) * 4, strict=True))
    for first, second in pairwise(quadruples):
        assert first[1] < second[0]
        assert first[3] < second[2]
    assert all(start <= end and low <= high for start, end, low, high in quadruples)
