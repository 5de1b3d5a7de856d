"""Separates a model's thoughts from its answer.

Reasoning models write their thoughts into the reply where the server does not take them out. Graders, judges and the
optimizer read the answer alone: a thought that names every option is no answer.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NAMES = "think|thinking|thought|thoughts|reasoning|seed:think"
_OPENING = rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<unused94>(?:thought\n)?"
_CLOSING = rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>"
_TAG = re.compile(rf"(?P<open>{_OPENING})|(?P<close>{_CLOSING})", re.IGNORECASE)

_CHANNEL = re.compile(r"<\|channel\|>\s*(?P<name>\w{1,40}+)[^<]{0,200}+(?:<\|constrain\|>[^<]{0,200})?<\|message\|>")
_END_OF_CHANNEL = re.compile(r"<\|(?:end|return|start|call|channel)\|>")
# The same with its special tokens taken out by the server.
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z\d\"'(\[])")
_BARE_FINAL = "assistantfinal"


@lru_cache(maxsize=256)
def answer_in(text: str) -> str | None:
    """The reply without the model's thoughts; ``None`` where it ends before the thoughts do.

    Thoughts are recognized in three forms: blocks between tags (``<think>``, ``<thinking>``, ``<thought>``,
    ``[THINK]``, ``◁think▷`` and similar) that start a line; everything before a closing tag without an opening one
    (chat templates put that into the prompt); and the channels of gpt-oss, where only ``final`` is the answer.
    """
    if _CHANNEL.search(text):
        return _final_channel(text)
    if _BARE_ANALYSIS.match(text):
        _, found, answer = text.rpartition(_BARE_FINAL)
        return answer.strip() if found else None
    return _outside_blocks(text)


def _final_channel(text: str) -> str | None:
    final = [match for match in _CHANNEL.finditer(text) if match["name"] == "final"]
    if not final:
        return None
    return _END_OF_CHANNEL.split(text[final[-1].end() :], maxsplit=1)[0].strip()


def _outside_blocks(text: str) -> str | None:
    kept: list[str] = []
    begin = block = mentioned = 0
    is_open = False
    for tag in _TAG.finditer(text):
        if tag["open"]:
            # A tag in the middle of a line is only mentioned; it opens no block.
            if not is_open and text[begin : tag.start()].rpartition("\n")[2].strip():
                mentioned += 1
            elif not is_open:
                is_open, block = True, tag.start()
        elif is_open:
            kept.append(text[begin:block])
            is_open, begin = False, tag.end()
        elif mentioned:
            mentioned -= 1
        else:
            kept, begin = [], tag.end()
    if is_open:
        return None
    return "".join([*kept, text[begin:]]).strip() if begin else text
