"""What an endpoint's failed replies mean; bodies and statuses as providers send them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from gpo.models.failures import FailureKind, read_failure, words_in

SENT = ("seed", "temperature", "top_p", "stop", "max_tokens")
WAF = "<html><head><title>Attention Required! | Cloudflare</title></head><body>Blocked</body></html>"


def read(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Any:
    return read_failure(status, body if isinstance(body, str) else json.dumps(body), headers, SENT)


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "WORDS"},
        {"message": "WORDS"},
        {"error": "WORDS"},
        {"error": {"message": "WORDS"}},
        [{"error": {"message": "WORDS"}}],
        "WORDS",
        {"object": "error", "message": "WORDS", "type": "BadRequestError", "code": 400},
        {"error": {"detail": "WORDS"}},
        {"detail": [{"loc": ["body", "seed"], "msg": "WORDS"}]},
        {"id": "x", "message": "WORDS"},
        {"errors": [{"message": "WORDS"}]},
        {"errors": ["WORDS"]},
        {"message": {"detail": "WORDS"}},
        {"error": {"message": "outer", "metadata": {"raw": "WORDS"}}},
        {"error": {"message": "outer", "metadata": {"raw": '{"error": {"message": "WORDS"}}'}}},
        {"choices": [{"error": {"message": "WORDS", "code": 502}}]},
        "<html><script>x()</script><body><h1>WORDS</h1></body></html>",
    ],
)
def test_the_endpoint_s_own_words_are_found_in_any_body(body: Any) -> None:
    words = words_in(body if isinstance(body, str) else json.dumps(body))
    assert words.count("WORDS") == 1
    assert "<" not in words
    assert "{" not in words


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"choices": []}', "<html></html>"])
def test_a_body_may_say_nothing(body: str) -> None:
    assert words_in(body) == ""


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, "", "key"),
        (403, {"error": {"message": "Forbidden"}}, "key"),
        (400, [{"error": {"message": "API key not valid.", "details": [{"reason": "API_KEY_INVALID"}]}}], "key"),
        (200, {"error": {"message": "Invalid API key"}}, "key"),
        (402, {"error": {"message": "Insufficient Balance"}}, "credit"),
        (429, {"error": {"type": "insufficient_quota", "code": None, "message": "over"}}, "credit"),
        (400, {"error": {"message": "Your credit balance is too low to access the API."}}, "credit"),
        (429, {"error": {"message": "You exceeded your current quota. Please retry in 34.07s."}}, "too_many"),
        (429, "", "too_many"),
        (404, {"error": {"code": "model_not_found", "message": "The model x does not exist"}}, "model"),
        (404, {"error": "model 'llama' not found, try pulling it first"}, "model"),
        (404, {"error": {"message": "No endpoints found matching your data policy"}}, "model"),
        (400, {"error": {"message": "gpt-9 is not a valid model ID"}}, "model"),
        (404, {"error": {"message": "models/x is not found for API version v1beta"}}, "model"),
        (404, {"error": {"type": "not_found_error", "message": "model: claude-9"}}, "model"),
        (400, {"error": {"code": "model_decommissioned", "message": "gone"}}, "model"),
        (403, {"error": {"message": "Your team doesn't have any credits yet"}}, "credit"),
        (400, {"error": {"message": "This organization has been disabled."}}, "key"),
        (400, {"error": {"message": "Content Exists Risk"}}, "filter"),
        (400, {"error": {"message": "Input has too many tokens. No token budget remains"}}, "request"),
        (429, {"error": {"message": "Request too large: Limit 30000, Requested 31234"}}, "request"),
        (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "path"),
        (404, "<html><body>404 page not found</body></html>", "path"),
        (404, {"detail": "Not Found"}, "path"),
        (405, {"detail": "Method Not Allowed"}, "path"),
        (400, {"error": {"code": "content_filter", "message": "filtered"}}, "filter"),
        (400, {"error": {"message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, "filter"),
        (403, {"error": {"message": "Your input was flagged by moderation"}}, "filter"),
        (403, WAF, "filter"),
        (400, {"error": {"message": "This model's maximum context length is 8192 tokens"}}, "request"),
        (400, {"error": {"message": "System role not supported"}}, "request"),
        (413, "", "request"),
        (200, {"error": "Unknown field"}, "request"),
        (200, {"error": {"message": "Provider returned error", "code": 502}}, "transient"),
        (200, {"error": "The model is overloaded"}, "transient"),
        (200, "<html>sign in</html>", "transient"),
        (408, "", "transient"),
        (498, "", "transient"),
        (500, "System role not supported", "transient"),
        (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, "transient"),
    ],
)
def test_words_and_codes_decide_the_scope_of_a_failure(status: int, body: Any, kind: str) -> None:
    assert read(status, body).kind == FailureKind(kind)


@pytest.mark.parametrize(
    ("status", "body", "parameter"),
    [
        (400, {"error": {"message": "Unsupported value", "param": "temperature"}}, "temperature"),
        (400, {"error": {"message": "Unsupported parameter: 'max_tokens'."}}, "max_tokens"),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "not permitted"}]}, "seed"),
        (422, {"message": {"detail": [{"loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]}}, "top_p"),
        (400, {"error": {"message": "Argument not supported: seed"}}, "seed"),
        (400, {"error": {"message": "max_tokens must be at least 1, got -12.", "param": "max_tokens"}}, ""),
        (400, {"error": {"message": "max_tokens is too large: 100000", "param": "max_tokens"}}, ""),
        (400, {"error": {"message": "Range of max_tokens should be [1, 8192]"}}, ""),
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be less than or equal to 1.5"}]}, ""),
        (400, {"error": {"message": "Please stop sending invalid requests"}}, ""),
        (400, {"error": {"message": "invalid token count: too many tokens"}}, ""),
        (400, {"error": {"message": "System role not supported"}}, ""),
        (500, {"error": {"message": "seed is not supported"}}, ""),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_named(status: int, body: Any, parameter: str) -> None:
    assert read(status, body).parameter == parameter


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after-ms": "5000"}, "", 5.0),
        ({"retry-after": "7", "x-ratelimit-reset-requests": "60s"}, "", 7.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, "", 360.0),
        ({"x-ratelimit-reset-tokens": "20ms"}, "", 0.02),
        ({"x-ratelimit-remaining-tokens": "90", "x-ratelimit-reset-tokens": "60s"}, "", None),
        ({}, {"error": {"details": [{"retryDelay": "30s"}]}}, 30.0),
        ({}, {"error": {"message": "Rate limit reached. Please try again in 1m30s."}}, 90.0),
        ({}, "", None),
        ({"retry-after": "soon"}, "", None),
    ],
)
def test_the_endpoint_says_when_to_try_again(headers: Mapping[str, str], body: Any, seconds: float | None) -> None:
    assert read(429, body, headers).retry_after_s == seconds


def test_the_time_to_try_again_may_be_a_date() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    assert 200 < read(503, "", {"retry-after": when}).retry_after_s <= 300


@pytest.mark.parametrize("piece", ["<!--", "<script>", '{"error":', "[", "model ", "invalid ", "try again "])
def test_hostile_bodies_are_read_quickly(piece: str) -> None:
    read(400, piece * 100_000)
