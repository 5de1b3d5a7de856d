"""Reads what the program asks the optimizer model for: a new prompt, a reflection or a summary.

The patterns match the texts of ``gpo.strategies`` (``meta_prompt``, ``refinement``, ``reflection``, ``summary``) and
must change with them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.simulated.task_model import MEANING, keywords_in
from gpo.models.protocol import Message
from gpo.strategies.meta_prompt import Kind

GAIN_PER_REWRITING = 5.0
"""Assumed gain in points when a compact meta-prompt shows one prompt as a rewriting of another."""

HISTORY, HISTORY_WITHOUT_SCORES = "Earlier prompts and their scores, worst first", "Earlier prompts"
CURRENT, REFLECTION, SUMMARY = "Current prompt", "Reflection on the current prompt", "What the search has taught so far"
WRONG_ANSWERS = "Wrong answers with the current prompt"
INSTRUCTIONS = "What to do"
EXAMINED, FAILURES, TO_REFLECT_ON = "Examined prompt", "Inputs that it failed on", "What to reflect on"
NOTES, BEFORE, REFLECTION_BEFORE = "Notes so far", "Prompt before the last step", "Reflection on that prompt"
TRIED, TO_NOTE = "Prompts that the last step tried, worst first", "What to note"
_TITLES = (
    "Examples of the task", HISTORY, HISTORY_WITHOUT_SCORES, CURRENT, WRONG_ANSWERS, REFLECTION, SUMMARY, INSTRUCTIONS,
    EXAMINED, FAILURES, TO_REFLECT_ON, NOTES, BEFORE, REFLECTION_BEFORE, TRIED, TO_NOTE,
)  # fmt: skip
# Only these titles count, since a prompt may contain sections too.
_TITLE = re.compile(rf"^## ({'|'.join(map(re.escape, _TITLES))})$", re.MULTILINE)
_SHOWN = re.compile(r"Prompt: (.*?)(?:\nScore: (-?[\d.]+))?\s*\Z", re.DOTALL)
_SCORED = re.compile(r"^Prompt: (.*?)\nScore: (-?[\d.]+)$", re.DOTALL | re.MULTILINE)
_STEP_SIZE = re.compile(r"Change at most (\d+) words? of the current prompt")
_KINDS: dict[str, Kind] = {
    "Rewrite this instruction": "generation",
    "Improve a few words of this instruction": "editing",
    "Say this instruction in other words": "paraphrase",
}
_REQUEST = re.compile(rf"^({'|'.join(_KINDS)}):\s", re.MULTILINE)
_TAGGED = re.compile(r'<prompt(?: accuracy="([\d.]+)")?>(.*?)</prompt>', re.DOTALL)
_HINTS: dict[str, Kind] = {
    "Change only the words that keep it": "editing",
    "Say the same in other words.": "paraphrase",
}
_NEW_PROMPT = re.compile(r"<START>(.*)<END>", re.DOTALL)
_ADVICE = re.compile(r"should (not )?say ('[a-z]+'(?:, '[a-z]+')*)")

Scored = tuple[tuple[str, float], ...]
"""Prompts with their scores as percentages."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Words to use and words to avoid, the most important first. A word that occurs several times counts that often."""

    say: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()

    def worded(self) -> str:
        """The advice in sentences that ``read_advice`` understands; empty if there is none."""
        sentences = (("It should say", self.say), ("It should not say", self.avoid))
        return " ".join(f"{start} {', '.join(map(repr, words))}." for start, words in sentences if words)


def read_advice(*texts: str) -> Advice:
    """Extract the advice from texts that may say other things as well."""
    say: list[str] = []
    avoid: list[str] = []
    for text in texts:
        for negation, words in _ADVICE.findall(text):
            (avoid if negation else say).extend(word.strip("'") for word in words.split(", "))
    return Advice(tuple(say), tuple(avoid))


@dataclass(frozen=True, slots=True)
class Assignment:
    """A request for a new prompt.

    Attributes:
        current: the prompt to rewrite.
        scored: every prompt with a shown score, including the current one if its score is shown. A compact meta-prompt
            shows each prompt as rewritten into a better one; scores are then assumed from that order.
        advice: taken from reflections and the summary.
        step_size: number of words that may change; ``None`` is no bound.
        other: a second prompt, to be merged with the current one before words change; ``None`` if there is none.
        failures: inputs on which the current prompt failed, if the request shows them. The model reflects on them.
    """

    current: str
    scored: Scored = ()
    advice: Advice = field(default_factory=Advice)
    step_size: int | None = None
    kind: Kind = "generation"
    other: str | None = None
    failures: ReflectionRequest | None = None


@dataclass(frozen=True, slots=True)
class ReflectionRequest:
    """A request for a reflection on a prompt.

    ``domain`` is that of the inputs on which the prompt failed; ``None`` if they belong to no known domain.
    """

    prompt: str
    domain: str | None
    num_failures: int


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """A request for a summary of the search: the notes so far, a reflection, and prompts with their scores."""

    old: Advice
    reflection: Advice
    scored: Scored


OptimizerRequest = Assignment | ReflectionRequest | SummaryRequest


def read_request(messages: Sequence[Message]) -> OptimizerRequest | None:
    """What a conversation asks the optimizer model for; ``None`` if it addresses the task model."""
    content = next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")
    return read_assignment(messages) or _reflection(content) or _summary(content)


def read_assignment(messages: Sequence[Message]) -> Assignment | None:
    """The new prompt that a conversation asks for; ``None`` if its last user turn is not a meta-prompt."""
    last = next((index for index in reversed(range(len(messages))) if messages[index]["role"] == "user"), None)
    if last is None:
        return None
    request = messages[last]["content"]
    return _full(_sections(request)) or _demonstrated(request) or _compact(request, messages[:last])


def _full(shown: dict[str, str]) -> Assignment | None:
    if CURRENT not in shown or INSTRUCTIONS not in shown:
        return None
    history, instructions = shown.get(HISTORY, shown.get(HISTORY_WITHOUT_SCORES, "")), shown[INSTRUCTIONS]
    bound = _STEP_SIZE.search(instructions)
    current = _shown_prompt(shown[CURRENT])
    return Assignment(
        current=current,
        scored=_scored_prompts(history, shown[CURRENT]),
        advice=read_advice(shown.get(SUMMARY, ""), history, shown.get(REFLECTION, "")),
        step_size=int(bound[1]) if bound else None,
        kind=_kind(instructions),
        failures=_failures(current, shown[WRONG_ANSWERS]) if WRONG_ANSWERS in shown else None,
    )


def _demonstrated(request: str) -> Assignment | None:
    before, found, rest = request.rpartition("Prompt to improve:\n<prompt")
    if not found:
        return None
    shown, _, rest = rest.partition("</prompt>")
    failures, asked, instructions = rest.rpartition("Write a better prompt, unlike those above.")
    if not asked:
        return None
    bound = re.search(r"Change at most (\d+) words?\.", instructions)
    scored = tuple(
        (prompt.strip(), float(score)) for score, prompt in _TAGGED.findall(f"{before}<prompt{shown}</prompt>") if score
    )
    current = shown.partition(">")[2].strip()
    return Assignment(
        current=current,
        scored=scored,
        advice=read_advice(before),
        step_size=int(bound[1]) if bound else None,
        kind=next((kind for words, kind in _HINTS.items() if words in instructions), "generation"),
        failures=_failures(current, failures.replace("<wrong>", "\nInput: ")) if "<wrong>" in failures else None,
    )


def _kind(instructions: str) -> Kind:
    if "means the same as the current prompt" in instructions:
        return "paraphrase"
    return "editing" if "edit just these words" in instructions else "generation"


def _compact(request: str, earlier: Sequence[Message]) -> Assignment | None:
    parsed = _last_request(request)
    if parsed is None:
        return None
    notes, kind, current = parsed
    return Assignment(current=current, scored=_path(earlier, current), advice=read_advice(notes), kind=kind)


def _last_request(content: str) -> tuple[str, Kind, str] | None:
    """The text before the last compact request of a turn, its kind, and the prompt in it."""
    found = max(_REQUEST.finditer(content), key=lambda match: match.start(), default=None)
    return found and (content[: found.start()], _KINDS[found[1]], content[found.end() :].strip())


def _path(earlier: Sequence[Message], current: str) -> Scored:
    """The rewritings that led to the current prompt; the built-in examples lead elsewhere."""
    path = [current]
    for request, reply in zip(reversed(earlier[:-1]), reversed(earlier[1:]), strict=True):
        parsed, rewritten = _last_request(request["content"]), _NEW_PROMPT.search(reply["content"])
        if request["role"] == "user" and parsed and rewritten:
            if rewritten[1].strip() != path[0]:
                break
            path.insert(0, parsed[2])
    if len(path) == 1:
        return ()
    return tuple((prompt, GAIN_PER_REWRITING * index) for index, prompt in enumerate(path))


def _reflection(request: str) -> ReflectionRequest | None:
    shown = _sections(request)
    if EXAMINED not in shown or TO_REFLECT_ON not in shown:
        return None
    return _failures(_shown_prompt(shown[EXAMINED]), shown.get(FAILURES, ""))


def _failures(prompt: str, shown: str) -> ReflectionRequest:
    num_failures = sum(line.startswith("Input: ") for line in shown.splitlines())
    return ReflectionRequest(prompt, domain_of(shown), num_failures)


def domain_of(text: str) -> str | None:
    """The domain that most keywords of a text belong to; ``None`` if it has no keyword."""
    domains = Counter(MEANING[keyword][0] for keyword in sorted(keywords_in(text)))
    return domains.most_common(1)[0][0] if domains else None


def _summary(request: str) -> SummaryRequest | None:
    shown = _sections(request)
    if BEFORE not in shown or TO_NOTE not in shown:
        return None
    return SummaryRequest(
        old=read_advice(shown.get(NOTES, "")),
        reflection=read_advice(shown.get(REFLECTION_BEFORE, "")),
        scored=_scored_prompts(shown[BEFORE], shown.get(TRIED, "")),
    )


def _sections(request: str) -> dict[str, str]:
    """Title → content; empty if the program did not write this text."""
    if "## " not in request:  # the usual case, and much faster than the regular expression
        return {}
    _, *parts = _TITLE.split(request)
    return {title: content.strip() for title, content in zip(parts[::2], parts[1::2], strict=True)}


def _shown_prompt(content: str) -> str:
    """The prompt in a section, with or without a score; empty if there is none."""
    found = _SHOWN.match(content)
    return found[1].strip() if found else ""


def _scored_prompts(*contents: str) -> Scored:
    found = (match for content in contents for match in _SCORED.findall(content))
    return tuple((prompt.strip(), float(score)) for prompt, score in found)
