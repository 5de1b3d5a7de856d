"""Reads the requests of other optimizers and frames replies in their formats.

Supported are promptolution's tags, GEPA's fenced blocks and DSPy's fields. A request for a better prompt becomes an
``Assignment`` with the current prompt and the scored prompts that it shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulated.optimizer_requests import Assignment
from gpo.models.protocol import Message

_FENCED = re.compile(r"```\n(.*?)\n```", re.DOTALL)
_TAGGED_SCORED = re.compile(r"^text:\n(.*?)\nscore: (-?\d+)$", re.DOTALL | re.MULTILINE)
_PARENT = re.compile(r"^Prompt \d: (.*)$", re.MULTILINE)
_FIELDS = re.compile(r"^Respond with the corresponding output fields(.*)\Z", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
_VALUE = re.compile(r"^\[\[ ## \w+ ## \]\]\n(.*?)\s*(?=^\[\[ ## |^Respond with |\Z)", re.DOTALL | re.MULTILINE)
_OBJECTIVE = re.compile(r"your objective is:\s*(.*)\Z", re.DOTALL)
_ATTEMPT = re.compile(r"Instruction #\d+: (.*?)\n.*?Resulting Score #\d+: ([\d.]+)", re.DOTALL)
_PROPOSED = "proposed_instruction"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A request of another optimizer.

    Attributes:
        assignment: the requested rewriting; ``None`` for a question to the task model.
        question: that question in plain words, else empty.
        before, after: text around the reply.
    """

    assignment: Assignment | None
    question: str = ""
    before: str = ""
    after: str = ""

    def framed(self, text: str) -> str:
        """A reply in the requested format."""
        return f"{self.before}{text}{self.after}"


def read_foreign(messages: Sequence[Message]) -> Foreign | None:
    """The request in a conversation of another optimizer; ``None`` if it has none of the formats."""
    content = messages[-1]["content"]
    if "</prompt>" in content:
        return _tagged(content)
    if "``` blocks" in content:
        return _fenced(content)
    if "[[ ## " in content:
        return _fields(messages)
    return None


def _tagged(content: str) -> Foreign:
    scored = tuple((prompt.strip(), float(score)) for prompt, score in _TAGGED_SCORED.findall(content))
    parents = _PARENT.findall(content)
    # Scored prompts end with the best one. Parents follow the parents of an example.
    current = scored[-1][0] if scored else parents[-2] if len(parents) > 1 else ""
    return Foreign(Assignment(current, scored), before="<prompt>", after="</prompt>")


def _fenced(content: str) -> Foreign:
    found = _FENCED.search(content)
    return Foreign(Assignment(found[1] if found else ""), before="```\n", after="\n```")


def _fields(messages: Sequence[Message]) -> Foreign | None:
    content = messages[-1]["content"]
    asked = _FIELDS.search(content)
    if asked is None:
        return None
    names = [name for name in _FIELD.findall(asked[1]) if name != "completed"]
    values = [value.strip() for value in _VALUE.findall(content)]
    if not names or not values:
        return None
    first, *others = names
    before = f"[[ ## {first} ## ]]\n"
    after = "".join(f"\n\n[[ ## {name} ## ]]\nLabel:" for name in others) + "\n\n[[ ## completed ## ]]"
    if first == _PROPOSED:
        scored = tuple((prompt.strip(), float(score)) for prompt, score in _ATTEMPT.findall(values[0]))
        return Foreign(Assignment(scored[-1][0] if scored else values[0], scored), before=before, after=after)
    objective = _OBJECTIVE.search(messages[0]["content"])
    instruction = " ".join(objective[1].split()) if objective else ""
    return Foreign(None, "\n".join([instruction, *values]), before, after)
