"""What an endpoint replies, read by the rules of DESIGN.md's "Bad replies".

The ``openai`` client's own types let any reply through, and fail where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, TypeVar

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

from gpo.models.endpoint import Price
from gpo.models.protocol import Usage

MAX_REPLY_CHARACTERS = 100_000
"""A longer text is cut there, and counts as truncated: it would be graded, shown to models and saved."""

_MAX_MENDED_BYTES = 1_000_000
"""Python's own reader takes a hundred times a body's size of memory."""

_MAX_TOKENS = 1_000_000_000
"""No call takes more; sums of what is below never overflow in a file."""

_T = TypeVar("_T", bound=BaseModel)


def _or_none(value: Any, read: Next) -> Any:
    # A reply that was paid for is not thrown away because a figure beside it makes no sense.
    try:
        return read(value)
    except ValidationError:
        return None


def _joined_parts(content: Any) -> Any:
    """The text of a content that is a list of parts; parts of other kinds (pictures, thoughts) are left out."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type", "text") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _masked(content: str | None, info: ValidationInfo) -> str | None:
    mask = (info.context or {}).get("mask")
    return mask(content) if mask is not None and content else content


class _Message(BaseModel):
    content: Annotated[str | None, BeforeValidator(_joined_parts), AfterValidator(_masked)] = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: Annotated[str | None, WrapValidator(_or_none)] = None


_Tokens = Annotated[Annotated[int, Field(ge=0, le=_MAX_TOKENS)] | None, WrapValidator(_or_none)]


class _Usage(BaseModel):
    prompt_tokens: _Tokens = None
    completion_tokens: _Tokens = None

    def cost(self, price: Price) -> Usage:
        """Of one request; of what is not known, nothing."""
        sent, generated = self.prompt_tokens or 0, self.completion_tokens or 0
        return Usage(requests=1, prompt_tokens=sent, completion_tokens=generated, cost_usd=price.of(sent, generated))


class ChatReply(BaseModel):
    """A reply to a conversation: the first of its choices."""

    choices: Annotated[list[_Choice], Field(min_length=1), FailFast()]
    usage: Annotated[_Usage | None, WrapValidator(_or_none)] = None

    @classmethod
    def read(cls, body: bytes, mask: Callable[[str], str] | None = None) -> Self:
        """The reply in a body.

        Args:
            mask: takes a secret out of what was said, before any of it is used.

        Raises:
            ValidationError: there is none.
        """
        return _read(cls, body, {"mask": mask})

    @property
    def text(self) -> str:
        """What was said; empty where nothing was."""
        return (self.choices[0].message.content or "")[:MAX_REPLY_CHARACTERS]

    @property
    def is_truncated(self) -> bool:
        """Whether it ended at a bound on tokens or characters."""
        choice = self.choices[0]
        return choice.finish_reason == "length" or len(choice.message.content or "") > MAX_REPLY_CHARACTERS

    def cost(self, price: Price) -> Usage:
        """What the request cost, and what is to be counted of the reply."""
        said = self.usage or _Usage()
        cost = said.cost(price)
        empty, unmetered = not self.text.strip(), said.prompt_tokens is None or said.completion_tokens is None
        if not (empty or unmetered or self.is_truncated):
            return cost
        return cost + Usage(empty=int(empty), truncated=int(self.is_truncated), unmetered=int(unmetered))


class _Embedding(BaseModel):
    embedding: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1), FailFast()]


class EmbeddingReply(BaseModel):
    """Embeddings of texts, all of one length, in the order of the texts."""

    data: Annotated[list[_Embedding], FailFast()]
    usage: Annotated[_Usage | None, WrapValidator(_or_none)] = None

    @classmethod
    def read(cls, body: bytes, num_texts: int) -> Self:
        """The embeddings in a body.

        Raises:
            ValidationError: there are none, or not one for each text.
        """
        return _read(cls, body, {"num_texts": num_texts})

    @model_validator(mode="after")
    def _one_for_each_text(self, info: ValidationInfo) -> Self:
        if info.context and len(self.data) != info.context["num_texts"]:
            raise ValueError("holds another number of embeddings than of texts")
        if len({len(row.embedding) for row in self.data}) > 1:
            raise ValueError("holds embeddings of several lengths")
        return self

    def cost(self, price: Price) -> Usage:
        """What the request cost."""
        return (self.usage or _Usage()).cost(price)


def _read(kind: type[_T], body: bytes, context: Mapping[str, Any]) -> _T:
    try:
        return kind.model_validate_json(body, context=context)
    except ValidationError as error:
        if len(body) > _MAX_MENDED_BYTES or error.errors()[0]["type"] != "json_invalid":
            raise
        return kind.model_validate_json(_mended(body) or body, context=context)


def _mended(body: bytes) -> bytes | None:
    """The same without halves of characters and raw control characters in texts; ``None`` where it is no JSON.

    That is in UTF-8, with or without a mark of byte order; nothing else is JSON.
    """
    try:
        # Of bytes, it would guess the encoding.
        document = json.loads(body.decode("utf-8-sig", "surrogatepass"), strict=False)
        return json.dumps(document, ensure_ascii=False).encode(errors="replace")
    except (ValueError, RecursionError):
        return None
