"""Separating what a model thinks from what it answers.

Reasoning models write their thoughts into the reply where the server does not take them out. Graders, judges and the
optimizer read the answer alone: a thought that names every option is no answer.
"""

from __future__ import annotations

import re

_NAMES = "think|thinking|thought|thoughts|reasoning|seed:think"
_OPENING = rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<unused94>(?:thought\n)?"
_CLOSING = rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>"
# A block counts where a line begins: in the middle of a sentence, the tags are what the sentence speaks of.
_BLOCK = re.compile(rf"^[ \t]*(?:(?:{_OPENING}).*?(?:{_CLOSING})[ \t]*)+", re.IGNORECASE | re.DOTALL | re.MULTILINE)
_UNCLOSED = re.compile(rf"^[ \t]*(?:{_OPENING})", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile(rf"(?P<open>{_OPENING})|(?P<close>{_CLOSING})", re.IGNORECASE)

_CHANNEL = re.compile(r"<\|channel\|>\s*(?P<name>\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_END_OF_CHANNEL = re.compile(r"<\|(?:end|return|start|call|channel)\|>")
# The same with its special tokens taken out by the server.
_BARE_ANALYSIS = re.compile(r"analysis(?=[A-Z\d\"'(\[])")
_BARE_FINAL = "assistantfinal"


def answer_in(text: str) -> str | None:
    """The reply without the model's thoughts; ``None`` where it ends before the thoughts do.

    Understood are blocks between tags (``<think>``, ``<thinking>``, ``<thought>``, ``[THINK]``, ``◁think▷`` and their
    like) at the beginning of a line, everything before a closing tag that nothing opened (chat templates put the
    opening one into the prompt), and the channels of gpt-oss, of which only ``final`` is the answer.
    """
    if _CHANNEL.search(text):
        return _final_channel(text)
    if _BARE_ANALYSIS.match(text.lstrip()):
        _, found, answer = text.rpartition(_BARE_FINAL)
        return answer.strip() if found else None
    text = _after_lone_closing(_BLOCK.sub("", text))
    if _UNCLOSED.search(text):
        return None
    return text.strip()


def _final_channel(text: str) -> str | None:
    final = [match for match in _CHANNEL.finditer(text) if match["name"] == "final"]
    if not final:
        return None
    return _END_OF_CHANNEL.split(text[final[-1].end() :], maxsplit=1)[0].strip()


def _after_lone_closing(text: str) -> str:
    num_open, begin = 0, 0
    for tag in _TAG.finditer(text):
        if tag["open"]:
            num_open += 1
        elif num_open:
            num_open -= 1
        else:
            begin = tag.end()
    return text[begin:]
