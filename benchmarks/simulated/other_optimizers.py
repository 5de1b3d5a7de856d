"""Reads the requests of other optimizers and frames replies in their formats.

Supported are promptolution's tags, gepa's fenced blocks, and DSPy's fields and JSON. A request for a better prompt
becomes an ``Assignment`` with what it shows: the current prompt, a second one to merge it with, scored prompts, or
inputs on which the current prompt failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulated.optimizer_requests import Assignment, ReflectionRequest, Scored, domain_of
from gpo.models.protocol import Message

_FENCED = re.compile(r"```\n(.*?)\n```", re.DOTALL)
_FAILURE = re.compile(r"response is incorrect|got a score of 0")
_TAGGED_SCORED = re.compile(r"^text:\n(.*?)\nscore: (-?\d+)$", re.DOTALL | re.MULTILINE)
_PARENT = re.compile(r"^Prompt \d: (.*)$", re.MULTILINE)
_FIELDS = re.compile(r"^Respond with the corresponding output fields(.*)\Z", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
_NAMED_VALUE = re.compile(r"^\[\[ ## (\w+) ## \]\]\n(.*?)\s*(?=^\[\[ ## |^Respond with |\Z)", re.DOTALL | re.MULTILINE)
_OBJECTIVE = re.compile(r"your objective is:\s*(.*)\Z", re.DOTALL)
_ATTEMPT = re.compile(r"Instruction #\d+: (.*?)\n.*?Resulting Score #\d+: ([\d.]+)", re.DOTALL)
_DESCRIBED = re.compile(r"^Task: (.*)$", re.MULTILINE)
_REPHRASED = re.compile(r"^Prompt: (.*)$", re.MULTILINE)
_PROPOSED, _BASIC = "proposed_instruction", "basic_instruction"
_JSON_FIELD = "new_instruction"
_CURRENT, _EXAMPLES = "current_instruction", "examples_with_feedback"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A request of another optimizer.

    Attributes:
        assignment: the requested rewriting; ``None`` for a question to the task model.
        question: that question in plain words, else empty.
        before, after: text around the reply.
        field: of a JSON object with the reply, if one is requested.
    """

    assignment: Assignment | None
    question: str = ""
    before: str = ""
    after: str = ""
    field: str = ""

    def framed(self, text: str) -> str:
        """A reply in the requested format."""
        if self.field:
            return json.dumps({self.field: text})
        return f"{self.before}{text}{self.after}"


def read_foreign(messages: Sequence[Message]) -> Foreign | None:
    """The request in a conversation of another optimizer; ``None`` if it has none of the formats."""
    content = messages[-1]["content"]
    if "</prompt>" in content:
        return _tagged(content)
    described = _DESCRIBED.search(content)
    if "Create overall 1 prompts" in content and described:
        # A list of one prompt, in JSON.
        return Foreign(Assignment(described[1]), before='["', after='"]')
    if "``` blocks" in content:
        return _fenced(content)
    if "[[ ## " in content:
        return _fields(messages)
    return None


def _tagged(content: str) -> Foreign:
    scored = tuple((prompt.strip(), float(score)) for prompt, score in _TAGGED_SCORED.findall(content))
    return Foreign(_rewriting(content, scored), before="<prompt>", after="</prompt>")


def _rewriting(content: str, scored: Scored) -> Assignment:
    parents, rephrased = _PARENT.findall(content), _REPHRASED.findall(content)
    if scored:  # OPRO; the best prompt is the last one
        return Assignment(scored[-1][0], scored)
    if len(parents) > 1:  # EvoPrompt and CAPO; EvoPrompt shows the parents of an example first
        current, other = parents[-2:]
        is_mutated = "Mutate" in content
        return Assignment(current, step_size=None if is_mutated else 0, kind="editing", other=other)
    if rephrased:  # CAPO's mutation
        return Assignment(rephrased[-1], kind="paraphrase")
    return Assignment("")


def _fenced(content: str) -> Foreign:
    current, *examples = _FENCED.findall(content) or [""]
    return Foreign(_improvement(current, "\n".join(examples)), before="```\n", after="\n```")


def _improvement(current: str, examples: str) -> Assignment:
    """A request with examples of answers and feedback."""
    num_failures = len(_FAILURE.findall(examples))
    failures = ReflectionRequest(current, domain_of(examples), num_failures) if num_failures else None
    return Assignment(current, failures=failures)


def _fields(messages: Sequence[Message]) -> Foreign | None:
    content = messages[-1]["content"]
    shown = {name: value.strip() for name, value in _NAMED_VALUE.findall(content)}
    if _CURRENT in shown:
        return Foreign(_improvement(shown[_CURRENT], shown.get(_EXAMPLES, "")), field=_JSON_FIELD)
    asked = _FIELDS.search(content)
    if asked is None:
        return None
    names = [name for name in _FIELD.findall(asked[1]) if name != "completed"]
    values = list(shown.values())
    if not names or not values:
        return None
    first, *others = names
    before = f"[[ ## {first} ## ]]\n"
    after = "".join(f"\n\n[[ ## {name} ## ]]\nLabel:" for name in others) + "\n\n[[ ## completed ## ]]"
    if first == _PROPOSED:
        scored = tuple((prompt.strip(), float(score)) for prompt, score in _ATTEMPT.findall(values[0]))
        current = scored[-1][0] if scored else shown.get(_BASIC, values[0])
        return Foreign(Assignment(current, scored), before=before, after=after)
    objective = _OBJECTIVE.search(messages[0]["content"])
    instruction = " ".join(objective[1].split()) if objective else ""
    return Foreign(None, "\n".join([instruction, *values]), before, after)
