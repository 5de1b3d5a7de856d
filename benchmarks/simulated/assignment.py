"""Reading meta-prompts: what the simulated optimizer model is to rewrite, how, and what it is shown for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.simulated.advice import Advice, read_advice
from benchmarks.simulated.sections import (
    CURRENT,
    HISTORY,
    HISTORY_WITHOUT_SCORES,
    INSTRUCTIONS,
    REFLECTION,
    SUMMARY,
    scored_prompts,
    sections,
    shown_prompt,
)
from gpo.models.protocol import Message
from gpo.strategies.compact_meta_prompt import Kind

GAIN_PER_REWRITING = 5.0
"""Points by which a prompt seems better than the one that a compact meta-prompt shows it as a rewriting of."""

# These patterns read ``gpo.strategies.refinement`` and ``gpo.strategies.compact_meta_prompt``, and change with them.
_STEP_SIZE = re.compile(r"Change at most (\d+) words? of the current prompt")
_REQUEST = re.compile(
    r"^(Rewrite this instruction|Improve a few words of this instruction|Say this instruction in other words):\s",
    re.MULTILINE,
)
_KINDS: dict[str, Kind] = {
    "Rewrite this instruction": "generation",
    "Improve a few words of this instruction": "editing",
    "Say this instruction in other words": "paraphrase",
}
_NEW_PROMPT = re.compile(r"<START>(.*)<END>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a meta-prompt asks for.

    Attributes:
        current: the prompt to rewrite.
        scored: every prompt shown with a score, the current one included where its score is shown. In a compact
            meta-prompt, where each prompt is shown as rewritten into a better one, scores are what that suggests.
        advice: what reflections and the summary say.
        step_size: words that may change; ``None`` is no bound.
    """

    current: str
    scored: tuple[tuple[str, float], ...] = ()
    advice: Advice = field(default_factory=Advice)
    step_size: int | None = None
    kind: Kind = "generation"


def read_assignment(messages: Sequence[Message]) -> Assignment | None:
    """What a conversation asks for; ``None`` where its last user turn is not a meta-prompt."""
    last = next((index for index in reversed(range(len(messages))) if messages[index]["role"] == "user"), None)
    if last is None:
        return None
    request = messages[last]["content"]
    return _full(sections(request)) or _compact(request, messages[:last])


def _full(shown: dict[str, str]) -> Assignment | None:
    if CURRENT not in shown or INSTRUCTIONS not in shown:
        return None
    history, instructions = shown.get(HISTORY, shown.get(HISTORY_WITHOUT_SCORES, "")), shown[INSTRUCTIONS]
    bound = _STEP_SIZE.search(instructions)
    return Assignment(
        current=shown_prompt(shown[CURRENT]),
        scored=scored_prompts(history, shown[CURRENT]),
        advice=read_advice(shown.get(SUMMARY, ""), history, shown.get(REFLECTION, "")),
        step_size=int(bound[1]) if bound else None,
        kind=_kind(instructions),
    )


def _kind(instructions: str) -> Kind:
    if "means the same as the current prompt" in instructions:
        return "paraphrase"
    return "editing" if "edit just these words" in instructions else "generation"


def _compact(request: str, earlier: Sequence[Message]) -> Assignment | None:
    asked = _requested(request)
    if asked is None:
        return None
    notes, kind, current = asked
    return Assignment(current=current, scored=_path(earlier, current), advice=read_advice(notes), kind=kind)


def _requested(content: str) -> tuple[str, Kind, str] | None:
    """What a compact request begins with, its kind, and the prompt in it. The last request of a turn is meant."""
    found = max(_REQUEST.finditer(content), key=lambda match: match.start(), default=None)
    return found and (content[: found.start()], _KINDS[found[1]], content[found.end() :].strip())


def _path(earlier: Sequence[Message], current: str) -> tuple[tuple[str, float], ...]:
    """The rewritings that led to the current prompt; those shown as examples lead elsewhere."""
    path = [current]
    for request, reply in zip(reversed(earlier[:-1]), reversed(earlier[1:]), strict=True):
        asked, rewritten = _requested(request["content"]), _NEW_PROMPT.search(reply["content"])
        if request["role"] == "user" and asked and rewritten:
            if rewritten[1].strip() != path[0]:
                break
            path.insert(0, asked[2])
    if len(path) == 1:
        return ()
    return tuple((prompt, GAIN_PER_REWRITING * index) for index, prompt in enumerate(path))
