"""What a failed reply means: the endpoint's own words, whom the failure concerns, and when to try again.

Endpoints agree on little more than the status, and the same status means different things: 429 may be "too many
calls" or "no credit left", 403 a wrong key or a text that a filter refuses, 404 a wrong model or a wrong path. So the
words and codes in the body decide first; without them, the status decides.
"""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    """The scope of a failed reply: this request, or every call with this key, account, model or URL."""

    TRANSIENT = "transient"
    """The same request may succeed later."""
    TOO_MANY = "too_many"
    """One call too many at the time."""
    KEY = "key"
    """Every call with this key."""
    CREDIT = "credit"
    """Every call of this account: it has no credit or quota left."""
    MODEL = "model"
    """Every call to this model."""
    PATH = "path"
    """Every call to this URL: it is not the address of an API."""
    FILTER = "filter"
    """This text: a content filter or a firewall refuses it."""
    REQUEST = "request"
    """This request: too long, malformed, with a parameter that the endpoint does not take."""


@dataclass(frozen=True, slots=True)
class FailedReply:
    """The content of a failed reply.

    Attributes:
        words: the endpoint's own message, in one line without tags; empty if there is none.
        kind: the scope of the failure.
        is_away: whether a gateway answered because it could not reach the server behind it.
        retry_after_s: how long the endpoint asks to wait, in seconds.
        parameter: the parameter of the request that the endpoint refuses; empty where it refuses none.
    """

    words: str
    kind: FailureKind
    is_away: bool = False
    retry_after_s: float | None = None
    parameter: str = ""


def read_failure(
    status: int, body: bytes | str, headers: Mapping[str, str] | None = None, sent: Collection[str] = ()
) -> FailedReply:
    """Read a failed reply.

    Args:
        status: of HTTP; 200 for an error in the body of a reply that calls itself a success.
        body: of any form.
        headers: names in lower case.
        sent: names of the request's parameters, such as ``seed``.
    """
    text = _decoded(body)
    document = _json(text)
    words, codes = _words_of(text, document), frozenset(_codes(document, 0))
    is_page = document is None and bool(_TAG.search(text))
    if status < 300:
        status = 500 if document is None else _status_in(document, words)
    parameter = _refused_parameter(status, document, words, sent)
    retry_after_s = _retry_after_s(headers or {}, document, words)
    kind = _kind(
        status,
        codes,
        words,
        is_page=is_page,
        is_retryable=retry_after_s is not None,
    )
    if parameter and kind not in (FailureKind.KEY, FailureKind.CREDIT):
        kind = FailureKind.REQUEST
    return FailedReply(words, kind, status in _NOBODY_BEHIND, retry_after_s, parameter)


def words_in(body: bytes | str) -> str:
    """The endpoint's own words in one line, each once, without HTML tags; empty if there are none."""
    text = _decoded(body)
    return _words_of(text, _json(text))


# Words and codes.

_MAX_CHARACTERS, _MAX_DEPTH = 10_000, 6
_SPEAKING = ("message", "detail", "error", "errors", "error_message", "msg", "reason", "description", "title", "raw")
"""Fields that hold the words, the most telling first."""
_HOLDING = ("metadata", "innererror", "inner_error", "body", "response", "data", "fault", "status", "choices")
"""Fields below which there may be more."""
_CODES = ("code", "type", "error_code", "status", "reason", "param")
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<!--.{0,500}?-->|<[!/?]?[a-zA-Z][^>]*>", re.DOTALL)


def _decoded(body: bytes | str) -> str:
    text = body if isinstance(body, str) else body[: 4 * _MAX_CHARACTERS].decode("utf-8-sig", errors="replace")
    return text[:_MAX_CHARACTERS].strip()


def _json(text: str) -> Any:
    if not text.startswith(("{", "[", '"')):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _words_of(text: str, document: Any) -> str:
    if document is None:
        return _plain(text)
    found: list[str] = []
    for words in _words(document, 0):
        plain = _plain(words)
        if plain and not any(plain in other for other in found):
            found = [other for other in found if other not in plain] + [plain]
    return ": ".join(found)


def _words(value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        inner = _json(value.strip())
        if isinstance(inner, (dict, list)):
            yield from _words(inner, depth + 1)
        else:
            yield value
    elif isinstance(value, list):
        for item in value[:3]:
            yield from _words(item, depth + 1)
    elif isinstance(value, dict):
        for name in _SPEAKING:
            if name == "msg" and isinstance(value.get("loc"), list):
                yield f"{'.'.join(map(str, value['loc']))}: {value['msg']}"
            else:
                yield from _words(value.get(name), depth + 1)
        for name in _HOLDING:
            if not isinstance(value.get(name), str):
                yield from _words(value.get(name), depth + 1)


def _codes(value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value[:3]:
            yield from _codes(item, depth + 1)
    elif isinstance(value, dict):
        for name in _CODES:
            if isinstance(value.get(name), (str, int)) and not isinstance(value[name], bool):
                yield str(value[name]).lower()
        for item in value.values():
            yield from _codes(item, depth + 1)


def _plain(text: str) -> str:
    """The text in one line, without tags. An HTML page is reduced to its title and its visible text."""
    if _TAG.search(text):
        title = _TITLE.search(text)
        seen = _TAG.sub(" ", _UNSEEN.sub(" ", text))
        text = f"{title[1]} {seen}" if title and title[1].strip() not in seen else seen
    return " ".join(html.unescape(text).split())


# Whom it concerns.

_TRANSIENT = {408, 409, 425, 498}
_NOBODY_BEHIND = {502, 503, 504, 521, 522, 523, 529}
"""What gateways say for an endpoint that is away, and endpoints that are starting or overloaded for themselves."""

_CREDIT_CODES = {
    "insufficient_quota", "insufficient_user_quota", "insufficient_balance", "insufficient_credits",
    "insufficient_funds", "budget_exceeded",
    "allocationquota.freetieronly", "billing_hard_limit_reached", "billing_not_active", "billing_error",
    "exceeded_current_quota_error", "arrearage", "payment_required", "credit_balance_too_low", "out_of_credits",
    "quota_exhausted", "account_deactivated", "account_suspended", "1113",
}  # fmt: skip
_CREDIT = re.compile(
    r"insufficient[ _](?:account )?(?:balance|credits?|funds|quota)|credit balance is too low|out of credits?|"
    r"(?:no|not enough|never purchased|requires more) credits|payment required|exceeded your current quota|"
    r"billing hard limit|(?:doesn't|does not|don't) have any credits|specified API usage limits|"
    r"key limit exceeded|prepayment|spend(?:ing)? limit|recharge|top[ -]up|余额不足|欠费",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[ _](?:length|window)|too long|too many (?:input )?tokens|request too large|maximum (?:context|prompt)",
    re.IGNORECASE,
)
_KEY_CODES = {
    "invalid_api_key", "api_key_invalid", "authentication_error", "unauthenticated", "invalid_authentication_error",
    "invalid_authentication", "unauthorized", "missing_api_key", "access_denied", "permission_denied",
    "permission_error", "authenticationerror", "organization_restricted",
}  # fmt: skip
_KEY = re.compile(
    r"(?:invalid|incorrect|missing|expired|wrong|bad|no|unknown|revoked)\b.{0,25}(?:api[ _-]?key|"
    r"(?:api|access|auth|bearer)[ _-]token\b|token\W*$|credentials?|authentication|subscription key)|"
    r"api[ _-]?key\b.{0,30}(?:not valid|invalid|not found|expired|required|missing)|"
    r"organization has been disabled|user location is not supported|"
    r"\bunauthori[sz]ed\b|not authenticated|authentication (?:failed|required)",
    re.IGNORECASE,
)
_FILTER_CODES = {
    "content_filter", "content_policy_violation", "content_policy", "responsibleaipolicyviolation",
    "moderation_blocked", "data_inspection_failed", "prohibited_content", "invalid_prompt", "safety", "blocklist",
    "sensitive_words_detected", "1301", "content_exists_risk",
}  # fmt: skip
_FILTER = re.compile(
    r"content[ _-](?:management|filter|policy|moderation|safety)|(?:usage|safety|responsible ai) polic|"
    r"moderation|flagged|"
    r"inappropriate (?:content|input)|violat\w+ .{0,30}polic|blocked (?:by|due to)|web application firewall|\bWAF\b|"
    r"cloudflare|content exists risk|request blocked|attention required|敏感",
    re.IGNORECASE,
)
_MODEL_CODES = {
    "model_not_found", "modelnotfound", "unknown_model", "invalid_model", "model_not_exist", "deploymentnotfound",
    "model_decommissioned", "model_terms_required", "model_not_available", "operationnotsupported", "1211",
}  # fmt: skip
_MODEL = re.compile(
    r"\bmodels?\b.{0,120}?(?:not (?:found|exist|available|supported)|does(?: not|n't) exist|unknown|"
    r"is not a valid|no such|"
    r"not have access)|(?:unknown|invalid|no such|unsupported) model|not a valid model|(?:deployment|engine)\b.{0,80}"
    r"(?:not exist|not found)|try pulling it|on-demand throughput|模型不存在|^(?:not_found_error: )?model: ",
    re.IGNORECASE,
)
_CRASHED = re.compile(r"model has crashed|model (?:is )?(?:still )?loading|currently loading", re.IGNORECASE)
_WRONG_PATH = re.compile(
    r"unexpected endpoint|unknown request url|invalid url|no route|cannot (?:post|get) /", re.IGNORECASE
)
_POLICY = re.compile(r"data policy|privacy|guardrail|no endpoints|provider", re.IGNORECASE)


def _kind(status: int, codes: frozenset[str], words: str, *, is_page: bool, is_retryable: bool) -> FailureKind:
    if status in (400, 413, 422) and _TOO_LONG.search(words):
        return FailureKind.REQUEST
    is_credit = status == 402 or codes & _CREDIT_CODES
    # "You exceeded your current quota" may be that of a minute: then the endpoint says when to try again.
    if is_credit or (status < 500 and status != 401 and not is_retryable and _CREDIT.search(words)):
        return FailureKind.CREDIT
    if status == 429:
        if _TOO_LONG.search(words):  # larger than the limit of a minute: it never fits
            return FailureKind.REQUEST
        return FailureKind.TOO_MANY
    if status in _TRANSIENT or status >= 500 or _CRASHED.search(words):
        return FailureKind.TRANSIENT
    if status == 401:
        return FailureKind.KEY
    if _WRONG_PATH.search(words):
        return FailureKind.PATH
    if codes & _FILTER_CODES:
        return FailureKind.FILTER
    if (status in (400, 403) and codes & _KEY_CODES) or (status in (400, 403, 404, 407, 422) and _KEY.search(words)):
        return FailureKind.KEY
    if codes & _MODEL_CODES or (status in (400, 404, 422) and _MODEL.search(words)):
        return FailureKind.MODEL
    if status in (400, 403, 406, 451) and (_FILTER.search(words) or (status in (403, 406) and is_page)):
        return FailureKind.FILTER
    if status == 403:
        return FailureKind.KEY
    if status in (404, 405, 410):
        return FailureKind.MODEL if _POLICY.search(words) else FailureKind.PATH
    if 300 <= status < 400:
        return FailureKind.PATH
    return FailureKind.REQUEST


_LATER = re.compile(
    r"overload|unavailable|time[d -]?out|try again|temporar|capacity|busy|upstream|internal", re.IGNORECASE
)


def _status_in(document: Any, words: str) -> int:
    """The status that a reply should have had which calls itself a success: named in its body, or guessed."""
    named = [int(code) for code in _codes(document, 0) if re.fullmatch(r"[45]\d\d", code)]
    return named[0] if named else 500 if not words or _LATER.search(words) else 400


# Parameters that the endpoint does not take.

# A value that is out of range is a mistake in one request, or in the configuration; the parameter itself is accepted.
_BAD_VALUE = re.compile(
    r"too (?:large|small|high|low)|at (?:least|most)|range|less than|greater|maximum|minimum|exceed|<=|>=|between|"
    r"got -?\d|positive|supports? up to",
    re.IGNORECASE,
)
_NOT_TAKEN = re.compile(
    r"unsupported|not support|does(?: not|n't) support|unrecognized|unknown|unexpected|not permitted|not allowed|"
    r"forbidden|extra inputs?|not (?:a )?valid|invalid|only .{0,40}(?:supported|allowed)|"
    r"cannot (?:both )?be (?:used|specified|set)|"
    r"deprecated|must (?:be|not)|instead|not available|not implemented|no longer",
    re.IGNORECASE,
)


def _refused_parameter(status: int, document: Any, words: str, sent: Collection[str]) -> str:
    """The parameter of the request that a reply with status 400 or 422 complains of."""
    if status not in (400, 422) or not sent:
        return ""
    if _BAD_VALUE.search(words):
        return ""
    named = [name for name in _located(document, 0) if name in sent]
    if named:
        return named[0]
    if not _NOT_TAKEN.search(words):
        return ""
    mentioned = [
        (match.start(), name)
        for name in sent
        if (match := re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", words, re.IGNORECASE))
        and (
            len(name) > 4
            or re.search(
                rf"['\"`:]\s*{re.escape(name)}\b|\b{re.escape(name)}['\"`]|parameter.{{0,20}}{re.escape(name)}",
                words,
                re.IGNORECASE,
            )
        )
    ]
    names = {name for _, name in mentioned}
    if {"temperature", "top_p"} <= names and re.search(r"\bboth\b", words, re.IGNORECASE):
        return "top_p"  # either of them may go; the temperature decides whether replies repeat
    return min(mentioned)[1] if mentioned else ""


def _located(value: Any, depth: int) -> Iterator[str]:
    """Names in the fields that identify the refused parameter: ``param``, ``loc``."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value[:5]:
            yield from _located(item, depth + 1)
    elif isinstance(value, dict):
        if isinstance(value.get("param"), str):
            yield value["param"]
        if isinstance(value.get("loc"), list):
            yield from (str(part) for part in reversed(value["loc"]))
        for item in value.values():
            yield from _located(item, depth + 1)


# When to try again.

_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|d)(?![a-z])", re.IGNORECASE
)
_SECONDS = {"ms": 0.001, "mi": 60.0, "m": 60.0, "s": 1.0, "h": 3600.0, "d": 86400.0}
_AGAIN = re.compile(
    r"(?:try again|retry(?:ing)?|wait|reset\w*|available again)\b.{0,30}?\b(?:in|after|for)?\s*"
    r"(\d[\d.]*\s*[a-z]+(?:\s?\d[\d.]*\s*[a-z]+)?)",
    re.IGNORECASE,
)


def _retry_after_s(headers: Mapping[str, str], document: Any, words: str) -> float | None:
    """How long the endpoint asks to wait, by its headers or else its body; ``None`` where it does not say."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    if "retry-after" in headers:
        said = headers["retry-after"]
        seconds = _number(said)
        return max(0.0, seconds) if seconds is not None else _until(said)
    resets = [
        waits
        for name in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{name}")) in (0.0, None)
        and (waits := _reset_s(headers.get(f"x-ratelimit-reset-{name}"))) is not None
    ]
    resets += [
        waits for name in ("x-ratelimit-reset", "ratelimit-reset") if (waits := _reset_s(headers.get(name))) is not None
    ]
    if resets:
        return max(resets)
    delay = next(_named_values(document, ("retryDelay", "retry_after", "retry_after_s"), 0), None)
    if delay is not None:
        return _reset_s(str(delay))
    found = _AGAIN.search(words)
    return _duration_s(found[1]) if found else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < 1e15 else None


def _reset_s(text: str | None) -> float | None:
    """Seconds from now: from a duration, a number of seconds, a date, or seconds or milliseconds since 1970."""
    if not text:
        return None
    value = _number(text)
    if value is None:
        return _duration_s(text) if _DURATION.search(text) else _until(text)
    if value > 1e11:
        return max(0.0, value / 1000 - time.time())
    return max(0.0, value - time.time()) if value > 1e9 else max(0.0, value)


def _duration_s(text: str) -> float | None:
    parts = _DURATION.findall(text)
    if not parts:
        return None
    return sum(
        float(number) * _SECONDS.get(unit.lower()[:2], _SECONDS.get(unit.lower()[0], 1.0)) for number, unit in parts
    )


def _until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, OverflowError):  # no date, or none that there is
        return None


def _named_values(value: Any, names: Collection[str], depth: int) -> Iterator[str | float]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value[:5]:
            yield from _named_values(item, names, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in names and isinstance(item, (str, int, float)):
                yield item
            else:
                yield from _named_values(item, names, depth + 1)
