from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.models.redaction import Redaction

KEY = "sk-canary\"<'&>\\/%+=5d1f0b"
WRITTEN = [
    str,
    json.dumps,
    repr,
    html.escape,
    quote,
    lambda key: quote(key, safe=""),
    lambda key: json.dumps(json.dumps(key)),
    lambda key: json.dumps(json.dumps(json.dumps(key))),
    lambda key: json.dumps(key).replace("/", "\\/"),
    lambda key: json.dumps(json.dumps(key).replace("/", "\\/")).replace("/", "\\/"),
    lambda key: "".join(character if character.isalnum() else f"\\u{ord(character):04X}" for character in key),
    lambda key: "".join(f"\\\\u{ord(character):04x}" for character in key),
    lambda key: "".join(f"&#{ord(character)};" for character in key),
    lambda key: "".join(f"&#x{ord(character):X};" for character in key),
    lambda key: html.escape(html.escape(key)),
    lambda key: html.escape(json.dumps(key)),
    lambda key: quote(quote(key, safe=""), safe=""),
]


@pytest.mark.parametrize("write", WRITTEN, ids=range(len(WRITTEN)))
def test_the_secret_is_masked_in_every_form(write) -> None:  # type: ignore[no-untyped-def]
    said = f"you sent {write(KEY)}, and that is wrong"
    for masked in (Redaction(KEY).message(said), Redaction(KEY).reply(said)):
        assert "canary" not in masked
        assert masked.startswith("you sent ")
        assert masked.endswith(", and that is wrong")
        assert "***" in masked


@given(st.text("abc\"'\\/&<>%+ ~", min_size=12, max_size=30).filter(lambda key: " " not in key))
def test_any_secret_is_masked(key: str) -> None:
    redaction = Redaction(key)
    for write in WRITTEN:
        assert key not in redaction.message(write(key)) or key in "***"


@pytest.mark.parametrize(
    ("key", "in_messages", "in_replies"), [("", 0, 0), ("EMPTY", 0, 0), ("secret", 1, 0), (KEY, 1, 1)]
)
def test_a_short_secret_is_not_masked(key: str, in_messages: int, in_replies: int) -> None:
    said = f"a {key} b"
    assert ("***" in Redaction(key).message(said)) is bool(in_messages)
    assert ("***" in Redaction(key).reply(said)) is bool(in_replies)


@pytest.mark.parametrize("near", [KEY[:-1], KEY[1:], KEY.upper(), KEY.replace("-", "_"), KEY.replace("&", "&amp")])
def test_other_text_stays(near: str) -> None:
    said = f"you sent {near} \\ % &"
    assert Redaction(KEY).message(said) == said


@pytest.mark.parametrize("key", ["\\" * 12, KEY, "&" * 12, "%" * 12, "a\\" * 8])
@pytest.mark.parametrize("unit", ["\\", "&amp;", "&#0", "%25", "a\\", "a" + "\\" * 17, "u005c"])
def test_redaction_takes_linear_time(key: str, unit: str) -> None:
    Redaction(key).reply(unit * (400_000 // len(unit)))
    Redaction(key).reply("%" + "25" * 200_000)
