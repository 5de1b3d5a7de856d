"""Reading an endpoint's replies, which may be incomplete or malformed.

Required fields must be valid; optional fields are ignored if they are invalid. The ``openai`` client's own types accept
any reply, and fail only when a field is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    FailFast,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)
from pydantic import ValidatorFunctionWrapHandler as Next

from gpo.models.protocol import Usage
from gpo.models.thinking import answer_in

MAX_REPLY_CHARACTERS = 100_000
"""A longer text is cut there and counts as truncated, since it would be graded, shown to models and saved."""

_STREAMED = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(?::|event:|id:|retry:)[^\n]*\n\s*){0,100}data:")
_MAX_REPAIRED_BYTES = 1_000_000
"""Python's own JSON parser needs memory of a hundred times a body's size."""

_MAX_TOKENS = 1_000_000_000
"""No call needs more; below this bound, sums do not overflow in a file."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for one call."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


def _or_none(value: Any, read: Next) -> Any:
    # A reply that was paid for is used even if an optional number in it is invalid.
    try:
        return read(value)
    except ValidationError:
        return None


def _joined_parts(content: Any) -> Any:
    """The text of a content that is a list of parts, without parts of other kinds (pictures, thoughts)."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type", "text") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _masked(content: str | None, info: ValidationInfo) -> str | None:
    mask = (info.context or {}).get("mask")
    return mask(content) if mask is not None and content else content


_FILTERED = (
    "content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive", "refusal",
    "image_safety",
)  # fmt: skip
_FAILED = ("error", "abort", "network_error", "insufficient_system_resource", "malformed_function_call")
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
"""How endpoints name these ends of a reply, in lower case; some add a reason."""


class _Message(BaseModel):
    content: Annotated[str | None, BeforeValidator(_joined_parts), AfterValidator(_masked)] = None
    refusal: Annotated[str | None, AfterValidator(_masked), WrapValidator(_or_none)] = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: Annotated[str | None, WrapValidator(_or_none)] = None
    error: Any = None


_Tokens = Annotated[Annotated[int, Field(ge=0, le=_MAX_TOKENS)] | None, WrapValidator(_or_none)]


class _Usage(BaseModel):
    prompt_tokens: _Tokens = None
    completion_tokens: _Tokens = None
    total_tokens: _Tokens = None

    @property
    def generated(self) -> int:
        """Tokens generated, as they are charged: some endpoints count thoughts in the total alone."""
        unnamed = 0 if self.prompt_tokens is None else (self.total_tokens or 0) - self.prompt_tokens
        return max(self.completion_tokens or 0, unnamed)


class Reply(BaseModel):
    """The body of a successful reply."""

    usage: Annotated[_Usage | None, WrapValidator(_or_none)] = None

    @classmethod
    def read(cls, body: bytes, **context: Any) -> Self:
        """Parse a body.

        Args:
            context: what the validators of the kind of reply need.

        Raises:
            ValidationError: the body is not such a reply.
        """
        try:
            return cls.model_validate_json(body, context=context)
        except ValidationError as error:
            if len(body) > _MAX_REPAIRED_BYTES or error.errors()[0]["type"] != "json_invalid":
                raise
            return cls.model_validate_json(_repaired(body) or body, context=context)

    def cost(self, price: Price) -> Usage:
        """What the request cost; numbers that the endpoint does not report count as 0."""
        usage = self.usage or _Usage()
        sent, generated = usage.prompt_tokens or 0, usage.generated
        return Usage(requests=1, prompt_tokens=sent, completion_tokens=generated, cost_usd=price.of(sent, generated))


class ChatReply(Reply):
    """A reply to a conversation: the first of its choices.

    The context of ``read`` may have ``mask``, a function that removes a secret from the text before it is used.
    """

    choices: Annotated[list[_Choice], Field(min_length=1), FailFast()]

    @property
    def text(self) -> str:
        """The generated text; may be empty."""
        message = self.choices[0].message
        return (message.content or message.refusal or "")[:MAX_REPLY_CHARACTERS]

    @property
    def is_filtered(self) -> bool:
        """Whether a content filter ended the reply."""
        return (self.choices[0].finish_reason or "").lower().startswith(_FILTERED)

    @property
    def has_failed(self) -> bool:
        """Whether the model behind the endpoint failed while it wrote the reply."""
        return (self.choices[0].finish_reason or "").lower() in _FAILED or bool(self.choices[0].error)

    @property
    def is_truncated(self) -> bool:
        """Whether the text ends at a bound on tokens or characters."""
        choice = self.choices[0]
        return (choice.finish_reason or "").lower() in _CUT or len(choice.message.content or "") > MAX_REPLY_CHARACTERS

    def cost(self, price: Price) -> Usage:
        """What the request cost, and which flaws its reply has."""
        cost, usage = super().cost(price), self.usage or _Usage()
        empty = not (answer_in(self.text) or "").strip()
        unmetered = usage.prompt_tokens is None or usage.completion_tokens is None
        if not (empty or unmetered or self.is_truncated):
            return cost
        return cost + Usage(empty=int(empty), truncated=int(self.is_truncated), unmetered=int(unmetered))


class WholeReply(Reply):
    """Any reply, kept as it is. The context of ``read`` may have ``mask``, as for ``ChatReply``."""

    body: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _keep_all(cls, body: Any, info: ValidationInfo) -> Any:
        if not isinstance(body, dict) or not ({"choices", "data", "output"} & body.keys()):
            raise ValueError("the reply has neither choices nor data")
        if "choices" in body and not _first_message(body):
            raise ValueError("the reply has no message")
        mask = (info.context or {}).get("mask")
        return {"usage": body.get("usage"), "body": body if mask is None else _with_masked_texts(body, mask)}

    @property
    def is_filtered(self) -> bool:
        """Whether a content filter ended the reply."""
        return self._finish_reason.startswith(_FILTERED)

    @property
    def has_failed(self) -> bool:
        """Whether the model behind the endpoint failed while it wrote the reply."""
        return self._finish_reason in _FAILED

    @property
    def _finish_reason(self) -> str:
        return str(self.body["choices"][0].get("finish_reason") or "").lower() if self.body.get("choices") else ""

    def cost(self, price: Price) -> Usage:
        """What the request cost, and which flaws its reply has; a call of a tool is not empty."""
        cost, usage, message = super().cost(price), self.usage or _Usage(), _first_message(self.body)
        if not message:
            return cost
        unmetered = usage.prompt_tokens is None or usage.completion_tokens is None
        empty = not (message.get("content") or message.get("tool_calls") or message.get("refusal"))
        return cost + Usage(empty=int(empty), truncated=int(self._finish_reason in _CUT), unmetered=int(unmetered))


def _first_message(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message of the first choice; empty without one."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else {}


def _with_masked_texts(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: _with_masked_texts(below, mask) for name, below in value.items()}
    return [_with_masked_texts(below, mask) for below in value] if isinstance(value, list) else value


class _Embedding(BaseModel):
    embedding: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1), FailFast()]


class EmbeddingReply(Reply):
    """Embeddings of texts, all of one length, in the order of the texts.

    The context of ``read`` has ``num_texts``, the number of texts that were sent.
    """

    data: Annotated[list[_Embedding], FailFast()]

    @model_validator(mode="after")
    def _one_for_each_text(self, info: ValidationInfo) -> Self:
        context: Mapping[str, Any] = info.context or {}
        if len(self.data) != context.get("num_texts", len(self.data)):
            raise ValueError("the numbers of embeddings and of texts differ")
        if len({len(row.embedding) for row in self.data}) > 1:
            raise ValueError("the embeddings have several lengths")
        return self


def unstreamed(body: bytes) -> bytes:
    """A stream of server-sent events as one reply; an event that reports an error is the reply. Other bodies stay."""
    if not _STREAMED.match(body):
        return body
    text, finish_reason, usage = [], None, None
    for line in body.splitlines():
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        try:
            event = json.loads(line[5:])
        except (ValueError, RecursionError):
            continue
        if not isinstance(event, dict):
            continue
        if event.get("error") or ("choices" not in event and {"message", "detail", "code"} & event.keys()):
            return line[5:].strip()
        usage = event.get("usage") or usage
        for choice in event.get("choices") or []:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                delta = choice.get("delta") or choice.get("message") or {}
                text.append(_joined_parts(delta.get("content")) or "")
                finish_reason = choice.get("finish_reason") or finish_reason
    content = "".join(part for part in text if isinstance(part, str))
    if finish_reason is None and b"[DONE]" not in body[-200:]:
        return json.dumps({"error": {"message": "the stream ended early", "code": 500}}).encode()
    choices = [{"message": {"content": content}, "finish_reason": finish_reason}]
    return json.dumps({"choices": choices, "usage": usage}).encode()


def _repaired(body: bytes) -> bytes | None:
    """The JSON without unpaired surrogates and raw control characters in strings; ``None`` if it is not JSON.

    JSON is UTF-8, with or without a byte order mark.
    """
    try:
        # Given bytes, the parser would guess the encoding.
        document = json.loads(body.decode("utf-8-sig", "surrogatepass"), strict=False)
        return json.dumps(document, ensure_ascii=False).encode(errors="replace")
    except (ValueError, RecursionError):
        return None
