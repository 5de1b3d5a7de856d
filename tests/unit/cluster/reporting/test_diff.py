from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.reporting.diff import Segment, changes, word_diff, words

TEXTS = st.text(alphabet=st.sampled_from("ab <\n\t\u00a0\x1c\ufeff") | st.sampled_from("{}[]"), max_size=30)


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
        ("a {{ b c }}d", "a {{b  c}} d", [("same", "a {{b  c}} d")]),
        ("a {{ b c }}", "a {{ b d }}", [("same", "a"), ("deleted", " {{ b c }}"), ("inserted", " {{ b d }}")]),
        ("[[user]]a", "[[system]]b[[user]]a", [("inserted", "[[system]]b"), ("same", "[[user]]a")]),
        ("a b c d", "a x y d", [("same", "a"), ("deleted", " b c"), ("inserted", " x y"), ("same", " d")]),
    ],
)
def test_deleted_words_precede_their_replacement(before: str, after: str, shown: list[tuple[str, str]]) -> None:
    assert [(segment.change, segment.text) for segment in word_diff(before, after)] == shown


@given(TEXTS, TEXTS)
def test_a_diff_contains_both_texts(before: str, after: str) -> None:
    segments = word_diff(before, after)
    assert "".join(segment.text for segment in segments if segment.change != "deleted") == after
    # Word by word: the first word of a text has no white space before it, wherever it is in the other text.
    old = [word for segment in segments if segment.change != "inserted" for word in words(segment.text)]
    assert [word.strip() for word in old] == [word.strip() for word in words(before)]
    assert Segment("same", "") not in segments


@given(TEXTS, TEXTS)
def test_ranges_are_ordered_and_disjoint(before: str, after: str) -> None:
    numbers = changes(before, after)
    ranges = list(zip(*(iter(numbers),) * 4, strict=True))
    for first, second in pairwise(ranges):
        assert first[1] < second[0]
        assert first[3] < second[2]
    assert all(start <= end and low <= high for start, end, low, high in ranges)
