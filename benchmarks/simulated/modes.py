"""What real endpoints do differently: each mode is one such behaviour, for the requests of some models or of all.

``docs/reference/endpoints.md`` lists the modes with what the program does about them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web

FORBIDDEN = "forbidden phrase"
"""What a filter refuses."""
OPTIMIZER_REPLIES = (
    ("<think>The prompt goes between <START> and <END>. Let me", "length"),
    ("<think>\nOne line will do.\n</think>\n\nName the label, below the thoughts.", "stop"),
    ("<think>One line will do.</think> Name the label, on the same line.", "stop"),
    ("Perhaps <START>a first draft<END>, hm.\n</think>\n\n<START>Name the label, after a closing tag.<END>", "stop"),
    ("<think>Then <START>a draft in thought<END> is weak.</think>\n<START>Name the label, in tags.<END>", "stop"),
    ("<think>One line will do, and I ran out", "length"),
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
        "<START>Name the label, in the final channel.<END>",
        "stop",
    ),
)
"""What a reasoning model sends whose server leaves thoughts in the reply, with the reason why it ended."""
_CHAT = "/v1/chat/completions"


class Mode(StrEnum):
    """A behaviour of the endpoint, from the first request to the last unless noted."""

    SAYS = "says"
    """Every call gets ``error_status`` with ``error_body``."""
    EMPTY = "empty"
    """Replies without text that end at ``max_tokens``, as if all tokens were spent on thinking."""
    THINKS_UNSEEN = "thinks_unseen"
    """Tokens of thoughts are in the total number of tokens alone."""
    OPTIMIZER_THINKS = "optimizer_thinks"
    """The optimizer model sends ``OPTIMIZER_REPLIES`` in turn."""
    EMPTY_FIRST_ROUND = "empty_first_round"
    """The first answer is empty, and a conversation with an empty turn is refused with 400."""
    FAILS_IN_THE_REPLY = "fails_in_the_reply"
    """Status 200 with an error in the choice, for the first request of each conversation."""
    FAILS_WITH_200 = "fails_with_200"
    """Status 200 with an error instead of choices."""
    FILTERS_ONE_CANDIDATE = "filters_one_candidate"
    """The optimizer model's first prompt has ``FORBIDDEN`` in it, and texts with it are refused with 400."""
    FIREWALL = "firewall"
    """A firewall answers texts with ``FORBIDDEN`` in them with 403 and a page of HTML."""
    NO_CREDIT = "no_credit"
    """402 Insufficient Balance."""
    NO_QUOTA = "no_quota"
    """429 of the type ``insufficient_quota``."""
    INVALID_KEY = "invalid_key"
    """400 with a list, and the code ``API_KEY_INVALID`` in it."""
    KEY_EXPIRES = "key_expires"
    """After ``calls_per_key`` calls, 401 for the key of the first call."""
    DATA_POLICY = "data_policy"
    """404 since no provider fits the account's data policy."""
    TAGGED_NAMES = "tagged_names"
    """The list of models has the names with ``:latest``; calls work without it."""
    NO_LIST = "no_list"
    """The list of models answers 403."""
    REFUSES_SEED = "refuses_seed"
    """422 where ``seed`` is sent."""
    REFUSES_TEMPERATURE = "refuses_temperature"
    """400 where a ``temperature`` other than 1 is sent."""
    REFUSES_TOP_P = "refuses_top_p"
    """400 where ``top_p`` is sent."""
    REFUSES_STOP = "refuses_stop"
    """400 where ``stop`` is sent."""
    REFUSES_MAX_TOKENS = "refuses_max_tokens"
    """400 where ``max_tokens`` is sent; ``max_completion_tokens`` works."""
    NO_SYSTEM_ROLE = "no_system_role"
    """500 where the conversation has a system message."""
    ONLY_STREAMS = "only_streams"
    """400 where ``stream`` is not set."""
    SMALL_BATCHES = "small_batches"
    """400 for embeddings of more than 10 texts."""
    BUSY_FOR_MS = "busy_for_ms"
    """The first request gets 429 with ``retry-after-ms``."""
    OVERLOADED = "overloaded"
    """The first request of each conversation gets 529."""
    STATUS_498 = "status_498"
    """The first request of each conversation gets 498."""
    ALWAYS_FAILS = "always_fails"
    """500 with words in plain text."""


FOR_PROPOSALS = {Mode.OPTIMIZER_THINKS, Mode.FILTERS_ONE_CANDIDATE}
"""Modes that number the requests for a new prompt on their own."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as modes see it.

    Attributes:
        number: requests to this path before it, or requests for a new prompt.
        repetition: requests with the same content before it.
        is_proposal: whether it asks for a new prompt.
        is_first_key: whether it has the key of the first request.
        settings: the endpoint's behaviour.
    """

    path: str
    model: str
    body: Mapping[str, Any]
    number: int
    repetition: int
    is_proposal: bool
    is_first_key: bool
    settings: Any

    @property
    def text(self) -> str:
        """The whole conversation."""
        return json.dumps(self.body.get("messages", ""), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply in place of the usual one: a body of JSON, or text."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def response(self) -> web.Response:
        """The HTTP response."""
        is_text = isinstance(self.body, str)
        text = self.body if is_text else json.dumps(self.body)
        kind = "text/html" if is_text and self.body.startswith("<") else "text/plain" if is_text else "application/json"
        return web.Response(text=text, status=self.status, headers=self.headers, content_type=kind)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
    return Answer(status, {"error": {"message": message, **more}}, headers or {})


def answer_instead(mode: Mode, asked: Asked) -> Answer | None:
    """The reply in place of the model's; ``None`` where the model answers."""
    body, settings = asked.body, asked.settings
    match mode:
        case Mode.NO_LIST if asked.path == "/v1/models":
            return _error(403, "this key may not list models")
        case Mode.SMALL_BATCHES if isinstance(body.get("input"), list) and len(body["input"]) > 10:
            return _error(400, "batch size is invalid, it should not be larger than 10")
        case _ if asked.path != _CHAT:
            return None
        case Mode.SAYS:
            return Answer(settings.error_status, settings.error_body)
        case Mode.EMPTY_FIRST_ROUND if any(not turn["content"] for turn in body["messages"]):
            return _error(400, "messages: text content blocks must be non-empty")
        case Mode.FAILS_WITH_200:
            return Answer(200, {"error": "Error loading the model: out of memory"})
        case Mode.FILTERS_ONE_CANDIDATE if FORBIDDEN in asked.text and not asked.is_proposal:
            return _error(400, "The response was filtered", code="content_filter")
        case Mode.FIREWALL if FORBIDDEN in asked.text:
            return Answer(403, "<html><head><title>Attention Required!</title></head><body>Blocked.</body></html>")
        case Mode.NO_CREDIT:
            return _error(402, "Insufficient Balance")
        case Mode.NO_QUOTA:
            return _error(429, "You exceeded your current quota", type="insufficient_quota", code=None)
        case Mode.INVALID_KEY:
            details = [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
            error = {"code": 400, "message": "API key not valid. Pass a valid one.", "details": details}
            return Answer(400, [{"error": error}])
        case Mode.KEY_EXPIRES if asked.is_first_key and asked.number >= settings.calls_per_key:
            return _error(401, "the token has expired")
        case Mode.DATA_POLICY:
            return _error(404, "No endpoints found that match your data policy", code=404)
        case Mode.REFUSES_SEED if "seed" in body:
            refused = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}
            return Answer(422, {"detail": [refused]})
        case Mode.REFUSES_TEMPERATURE if body.get("temperature", 1) != 1:
            words = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model."
            return _error(400, words, param="temperature", code="unsupported_value")
        case Mode.REFUSES_TOP_P if "top_p" in body:
            return _error(400, "`temperature` and `top_p` cannot both be specified for this model: leave out `top_p`")
        case Mode.REFUSES_STOP if "stop" in body:
            return _error(400, "Unsupported parameter: 'stop' is not supported with this model.", param="stop")
        case Mode.REFUSES_MAX_TOKENS if "max_tokens" in body:
            words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return _error(400, words, param="max_tokens", code="unsupported_parameter")
        case Mode.NO_SYSTEM_ROLE if any(turn["role"] == "system" for turn in body["messages"]):
            return Answer(500, "System role not supported")
        case Mode.ONLY_STREAMS if not body.get("stream"):
            return _error(400, "This model only supports streaming: set stream to true", param="stream")
        case Mode.BUSY_FOR_MS if asked.number == 0:
            return _error(429, "slow down", {"retry-after-ms": f"{1000 * settings.retry_after_s:.0f}"})
        case Mode.OVERLOADED if asked.repetition == 0:
            return _error(529, "Overloaded", type="overloaded_error")
        case Mode.STATUS_498 if asked.repetition == 0:
            return _error(498, "the session has expired")
        case Mode.ALWAYS_FAILS:
            return Answer(500, "CUDA error: device-side assert triggered")
        case _:
            return None


def altered(mode: Mode, asked: Asked, body: dict[str, Any]) -> Answer:
    """The model's reply, changed."""
    if asked.path == "/v1/models" and mode is Mode.TAGGED_NAMES:
        for model in body["data"]:
            model["id"] += ":latest"
    if asked.path != _CHAT:
        return Answer(200, body)
    choice = body["choices"][0]

    def say(text: str | None, finish_reason: str = "stop") -> None:
        choice["message"]["content"], choice["finish_reason"] = text, finish_reason

    match mode:
        case Mode.EMPTY:
            say("", "length")
        case Mode.THINKS_UNSEEN:
            body["usage"] = {"prompt_tokens": 50, "completion_tokens": 2, "total_tokens": 1052}
        case Mode.OPTIMIZER_THINKS if asked.is_proposal:
            say(*OPTIMIZER_REPLIES[asked.number % len(OPTIMIZER_REPLIES)])
        case Mode.EMPTY_FIRST_ROUND if len(asked.body["messages"]) == 1:
            say("")
        case Mode.FAILS_IN_THE_REPLY if asked.repetition == 0:
            say(None, "error")
            choice["error"] = {"code": 502, "message": "the provider disconnected"}
        case Mode.FILTERS_ONE_CANDIDATE if asked.is_proposal and asked.number == 0:
            say(f"<START>Answer with the {FORBIDDEN}.<END>")
        case Mode.ONLY_STREAMS:
            return Answer(200, _streamed(body))
        case _:
            pass
    return Answer(200, body)


def _streamed(body: Mapping[str, Any]) -> str:
    text = body["choices"][0]["message"]["content"]
    pieces = [text[index : index + 7] for index in range(0, len(text), 7)]
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": body["usage"]}
    return "".join(f"data: {json.dumps(event)}\n\n" for event in [*events, end]) + "data: [DONE]\n\n"
