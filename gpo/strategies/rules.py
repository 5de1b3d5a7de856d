"""The rules that each new prompt must keep; a reply that breaks one is counted and dropped, never repaired."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from gpo.data.constraints import Constraint, Constraints
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.evaluation.prompt_template import form_problem, headings, lost_placeholders, placeholders, template_problem
from gpo.prompt import Prompt, parts_of
from gpo.runtime.process import PicklesFieldsOnly
from gpo.strategies.sections import parts_of_a_request

Rule = Constraint | Literal["placeholders", "copied_example", "parroted"]
"""The names of the rules."""

_COPIED_WORDS = 6
"""A new prompt that has so many words in a row in common with an example has copied them."""
_FEWEST_WORDS = 3
"""A shorter input is not guarded. Short targets never are: a prompt may name the labels."""
_COMMON = 0.2
"""Words that are in more than this share of the examples are the wording of the task, which a prompt may use."""
_MOST_GUARDED = 1_000
"""Examples that are compared with each reply; more would keep the process busy for too long."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Rules(PicklesFieldsOnly):
    """All rules for the new prompts of a search.

    Attributes:
        initial: the initial prompt; its words may be used, and its placeholders must be.
        is_template: whether prompts have the placeholders of the initial prompt.
        is_program: whether a program fills in the placeholders, if there are any; each part keeps its own.
        guarded: examples whose words a prompt must not copy; none turns this rule off.
    """

    initial: Prompt = field(default_factory=lambda: Prompt(""))
    constraints: Constraints = field(default_factory=Constraints)
    is_template: bool = False
    is_program: bool = False
    guarded: tuple[Example, ...] = ()

    def broken(self, prompt: Prompt) -> Rule | None:
        """The first rule that a new prompt breaks; ``None`` if it keeps all."""
        if self.is_template and template_problem(self.initial, prompt) is not None:
            return "placeholders"
        if self.is_program and lost_placeholders(self.initial, prompt) is not None:
            return "placeholders"
        if parts_of_a_request(prompt.text) - parts_of_a_request(self.initial.text):
            return "parroted"
        if (problem := self.constraints.broken(prompt)) is not None:
            return problem[0]
        return "copied_example" if self._copies(prompt) else None

    def of(self, part: str) -> Rules:
        """The rules that the author of one part has to know."""
        initial = Prompt(parts_of(self.initial.text).get(part, ""))
        return replace(self, initial=initial, constraints=self.constraints.of(part))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The placeholders and headings to keep, and the constraints, in words, for the optimizer model."""
        constraints = self.constraints.sentences()
        kept: dict[str, None] = {}
        if self.is_template or (self.is_program and form_problem(self.initial.text) is None):
            kept = dict.fromkeys((*placeholders(self.initial.text), *headings(self.initial.text)))
        if not kept:
            return tuple(constraints)
        return (f"Keep unchanged, each as often as now: {' '.join(kept)}.", *constraints)

    def _copies(self, prompt: Prompt) -> bool:
        own = _joined(prompt.text)
        words = own.split()
        rows = {f" {' '.join(words[at : at + _COPIED_WORDS])} " for at in range(len(words) - _COPIED_WORDS + 1)}
        parts = [row for row in rows if row in self._all] + [text for text in self._short if text in own]
        return any(self._is_of_few(part) for part in parts if part not in self._initial_words)

    def _is_of_few(self, part: str) -> bool:
        return sum(part in text for text in self._texts) <= max(1, _COMMON * len(self._texts))

    @cached_property
    def _initial_words(self) -> str:
        return _joined(self.initial.text)

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        """The words of each example: its inputs, and its targets unless they are labels."""
        repeats = Counter(target for example in self.guarded for target in example.targets)
        each = ((*_inputs(example), *(one for one in example.targets if repeats[one] == 1)) for example in self.guarded)
        return tuple(" | ".join(map(_joined, texts)) for texts in each)

    @cached_property
    def _all(self) -> str:
        return " | ".join(self._texts)

    @cached_property
    def _short(self) -> tuple[str, ...]:
        """Inputs that are shorter than what counts as copied, and must not be copied as a whole."""
        each = (_joined(text) for example in self.guarded for text in _inputs(example))
        return tuple(dict.fromkeys(text for text in each if _FEWEST_WORDS <= len(text.split()) < _COPIED_WORDS))


def _inputs(example: Example) -> tuple[str, ...]:
    return (example.input, *(text for _, text in example.placeholder_texts))


def _joined(text: str) -> str:
    """The words with one space around each, so that a search for some of them finds whole words only."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def search_rules(task: Task) -> Rules:
    """The rules for the new prompts of a task."""
    return Rules(
        initial=task.initial,
        constraints=task.constraints,
        is_template=task.is_template,
        is_program=task.program is not None,
        guarded=task.examples[Split.TRAIN][:_MOST_GUARDED] if task.guards_examples else (),
    )
