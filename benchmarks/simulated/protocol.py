"""The part of OpenAI's HTTP format that the simulated endpoint supports: requests, replies and errors."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from gpo.models.protocol import Message

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "assistant"}


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, code, message, retry_after_s)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    def body(self, quoted: str = "") -> dict[str, Any]:
        """The error in OpenAI's format; ``quoted`` is appended to its message."""
        kind = "server_error" if self.status >= 500 else "requests" if self.status == 429 else "invalid_request_error"
        return {"error": {"message": self.message + quoted, "type": kind, "param": None, "code": self.code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated request for a chat completion.

    Attributes:
        messages: plain texts; the role developer becomes system, and the role tool assistant.
        tools: names of the tools that the model may call next; none if a tool has just replied.
    """

    model: str
    messages: tuple[Message, ...]
    n: int
    temperature: float
    max_tokens: int | None
    stop: tuple[str, ...]
    seed: int | None
    tools: tuple[str, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """Words in the conversation."""
        return sum(len(turn["content"].split()) for turn in self.messages)


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A validated request for embeddings."""

    model: str
    texts: tuple[str, ...]
    as_base64: bool

    @property
    def prompt_tokens(self) -> int:
        """Words in all the texts."""
        return sum(len(text.split()) for text in self.texts)


@dataclass(frozen=True, slots=True)
class Choice:
    """One generated reply, after ``stop`` and ``max_tokens`` were applied."""

    text: str
    finish_reason: str

    @property
    def tokens(self) -> int:
        """Words in the reply."""
        return len(self.text.split())


def parse_body(raw: bytes) -> dict[str, Any]:
    """Parse the JSON object in a request's body.

    Raises:
        Refusal: the body is not a JSON object.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise _malformed(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise _malformed("the body is not a JSON object")
    return cast("dict[str, Any]", body)


def parse_chat(body: dict[str, Any]) -> ChatRequest:
    """Parse a chat request; settings without effect here (``top_p`` and others) are ignored.

    Raises:
        Refusal: a value is missing, of the wrong type or out of range, or the request asks for a stream.
    """
    if body.get("stream"):
        raise _malformed("'stream' is not supported by this endpoint")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _malformed("'messages' must be a non-empty list")
    temperature = body.get("temperature")
    if temperature is None:
        temperature = 1.0
    if not _is_number(temperature) or not 0 <= temperature <= 2:
        raise _malformed("'temperature' must be a number from 0 to 2")
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return ChatRequest(
        model=_model(body),
        messages=tuple(_message(turn) for turn in messages),
        n=_integer(body, "n", at_least=1) or 1,
        temperature=float(temperature),
        max_tokens=_integer(body, limit, at_least=1),
        stop=_stop(body.get("stop")),
        seed=_integer(body, "seed"),
        tools=() if messages[-1].get("role") == "tool" else _tools(body),
    )


def parse_embedding(body: dict[str, Any]) -> EmbeddingRequest:
    """Parse an embedding request.

    Raises:
        Refusal: a value is missing or of the wrong type; lists of token numbers are not supported.
    """
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _malformed("'input' must be a text or a non-empty list of texts")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise _malformed("'encoding_format' must be 'float' or 'base64'")
    return EmbeddingRequest(_model(body), tuple(texts), as_base64=encoding == "base64")


def cut(text: str, request: ChatRequest) -> Choice:
    """Cut a text at the first stop string and after ``max_tokens`` words."""
    ends = [end for end in (text.find(stop) for stop in request.stop) if end >= 0]
    text = text[: min(ends)] if ends else text
    words = text.split()
    if request.max_tokens is not None and len(words) > request.max_tokens:
        return Choice(" ".join(words[: request.max_tokens]), "length")
    return Choice(text, "stop")


def chat_body(request: ChatRequest, choices: Sequence[Choice], content: str) -> dict[str, Any]:
    """The reply to a chat request. ``content`` identifies the request; nothing depends on the time.

    A reply that is the name of a tool is a call of the tool, without arguments.
    """
    prompt_tokens, completion_tokens = request.prompt_tokens, sum(choice.tokens for choice in choices)
    return {
        "id": f"chatcmpl-{content}",
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text} if called is None else called,
                "logprobs": None,
                "finish_reason": choice.finish_reason if called is None else "tool_calls",
            }
            for index, choice in enumerate(choices)
            for called in [_tool_call(request, choice.text, f"call-{content}-{index}")]
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def embedding_body(request: EmbeddingRequest, vectors: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The reply to an embedding request: vectors as numbers, or as little-endian 32-bit floats in base64."""
    tokens = request.prompt_tokens
    return {
        "object": "list",
        "model": request.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if request.as_base64 else list(vector)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def models_body(models: Sequence[str]) -> dict[str, Any]:
    """The list of models."""
    listed = [{"id": model, "object": "model", "created": 0, "owned_by": "simulation"} for model in models]
    return {"object": "list", "data": listed}


def _tool_call(request: ChatRequest, text: str, name: str) -> dict[str, Any] | None:
    if text.strip() not in request.tools:
        return None
    call = {"id": name, "type": "function", "function": {"name": text.strip(), "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _tools(body: dict[str, Any]) -> tuple[str, ...]:
    tools = body.get("tools") or []
    named = [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else [None]
    if not all(isinstance(function, dict) and isinstance(function.get("name"), str) for function in named):
        raise _malformed("'tools' must be a list of functions with names")
    return tuple(cast("dict[str, str]", function)["name"] for function in named)


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _malformed(message: str) -> Refusal:
    return Refusal(400, "invalid_request", message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _malformed("'model' must be the name of a model")
    return model


def _integer(body: dict[str, Any], name: str, at_least: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or (at_least is not None and value < at_least):
        raise _malformed(f"'{name}' must be an integer{'' if at_least is None else f' of at least {at_least}'}")
    return value


def _stop(stop: object) -> tuple[str, ...]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise _malformed("'stop' must be a text or a list of texts")
    return tuple(stops)


def _message(turn: object) -> Message:
    role = turn.get("role") if isinstance(turn, dict) else None
    if not isinstance(turn, dict) or not isinstance(role, str) or role not in _ROLES:
        raise _malformed(f"every message needs a 'role' out of {', '.join(_ROLES)}")
    content = turn.get("content")
    if content is None and turn.get("tool_calls"):
        content = ""
    if isinstance(content, list):
        content = "\n".join(_part(part) for part in content)
    if not isinstance(content, str):
        raise _malformed("the 'content' of a message must be a text or a list of text parts")
    return cast("Message", {"role": _ROLES[role], "content": content})


def _part(part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return cast("str", part["text"])
    raise _malformed("only text parts are supported in a message's 'content'")
