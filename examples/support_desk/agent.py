"""An agent with tools: it calls a desk, reads what the desk says, and names the desk that takes the message."""

from __future__ import annotations

import json
from typing import Any

import openai

import gpo

DESKS = {
    "billing": "We see to money that was paid, or was not.",
    "technical": "We see to things that do not run as they should.",
    "shipping": "We see to goods on their way to somebody.",
    "account": "We see to names, pages and who may enter.",
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": name, "description": f"Call this desk. {says}", "parameters": {"type": "object"}},
    }
    for name, says in DESKS.items()
]
MAX_TURNS = 4


async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> gpo.Answer:
    """The desk that takes a message."""
    messages: list[Any] = [
        {"role": "system", "content": prompts["prompt"]},
        {"role": "user", "content": example["text"]},
    ]
    for _ in range(MAX_TURNS):
        reply = await client.chat.completions.create(model="task", messages=messages, tools=TOOLS)
        message = reply.choices[0].message
        if not message.tool_calls:
            return gpo.Answer(message.content or "")
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            json.loads(call.function.arguments)  # no JSON scores 0: a ValueError after a reply
            said = DESKS[call.function.name]  # and so does a tool that does not exist: a KeyError
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
    raise gpo.AnswerError(f"there is no answer after {MAX_TURNS} replies")
