"""A retrieval-augmented question answerer: it names the topic of a message, looks up who handles it, and answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import openai

import gpo

HANDBOOK = [
    passage.strip()
    for passage in Path(__file__).with_name("handbook.md").read_text().split("##")[1:]
    if passage.strip()
]


def search(query: str) -> list[str]:
    """The passages that share a word with the query, the one with most of its words first."""
    wanted = set(re.findall(r"\w+", query.lower()))
    ranked = [(len(wanted & set(re.findall(r"\w+", passage.lower()))), passage) for passage in HANDBOOK]
    return [passage for shared, passage in sorted(ranked, key=lambda one: -one[0]) if shared]


async def answer(prompts: dict[str, str], example: dict[str, Any], client: openai.AsyncOpenAI) -> gpo.Answer:
    """Name the desk that looks after a message."""
    topic = await ask(client, f"{prompts['topic']}\n{example['text']}")
    passages = search(topic)
    if not passages:
        raise gpo.AnswerError(f"[topic] the handbook has nothing about {topic!r}")
    desk = await ask(client, f"{prompts['desk']}\n{passages[0]}\n{example['text']}")
    if desk.strip().lower() not in passages[0].lower():
        raise gpo.AnswerError(f"the passage about {topic!r} does not name {desk!r}")
    return gpo.Answer(desk, trace=f"passage: {passages[0].splitlines()[0]}")


async def ask(client: openai.AsyncOpenAI, content: str) -> str:
    """The task model's reply to one message."""
    reply = await client.chat.completions.create(model="task", messages=[{"role": "user", "content": content}])
    return reply.choices[0].message.content or ""
