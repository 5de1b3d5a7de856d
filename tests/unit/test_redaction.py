from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.redaction import Redaction

KEY = "sk-canary\"<'&>\\/%+=5d1f0b"
WRITTEN = [
    str,
    json.dumps,
    repr,
    html.escape,
    quote,
    lambda key: quote(key, safe=""),
    lambda key: json.dumps(json.dumps(key)),
]


@pytest.mark.parametrize("write", WRITTEN, ids=range(len(WRITTEN)))
def test_the_secret_is_masked_in_every_form(write) -> None:  # type: ignore[no-untyped-def]
    said = f"you sent {write(KEY)}, and that is wrong"
    for masked in (Redaction(KEY).message(said), Redaction(KEY).body(said.encode()).decode()):
        assert "canary" not in masked
        assert masked.startswith("you sent ")
        assert masked.endswith(", and that is wrong")
        assert "***" in masked


@given(st.text("abc\"'\\/&<>%+ ~", min_size=12, max_size=30).filter(lambda key: " " not in key))
def test_whatever_the_secret_is(key: str) -> None:
    for write in WRITTEN:
        assert key not in Redaction(key).message(write(key)) or key in "***"


@pytest.mark.parametrize(
    ("key", "in_messages", "in_replies"), [("", 0, 0), ("EMPTY", 0, 0), ("secret", 1, 0), (KEY, 1, 1)]
)
def test_a_short_secret_is_a_word_like_any_other(key: str, in_messages: int, in_replies: int) -> None:
    said = f"a {key} b"
    assert ("***" in Redaction(key).message(said)) is bool(in_messages)
    assert (b"***" in Redaction(key).body(said.encode())) is bool(in_replies)
