"""A task: labelled examples in three splits, the format of the conversation, and the scorer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b

from gpo.data.constraints import Constraints
from gpo.data.example import Example
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.metrics import CustomScorer, ParsedScorer, Rubric, Scorer
from gpo.evaluation.program import ProgramSpec
from gpo.evaluation.prompt_template import lost_placeholders, template_problem
from gpo.prompt import Prompt
from gpo.user_code.functions import FunctionReference


class Split(StrEnum):
    """``VAL`` guides the search; ``TEST`` is scored only for the initial and the final prompt."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Task:
    """A task for a language model.

    Attributes:
        name: letters, digits, ``.``, ``_`` and ``-``; used in files, metrics and tables.
        initial: the prompt that the search starts from.
        given: prompts that the search tries first; distinct, without the initial one.
        examples: the examples of each split in a fixed order; ``VAL`` and ``TEST`` are not empty.
        answer_format: format of the conversation with the task model.
        scorer: compares an answer with the example's targets; with a rubric, a language model does so.
        group: heading under which the score is reported together with others; empty for none.
        counts_as: unit in averages, shared by tasks with the same value; empty if the task counts alone.
        goal: what the task is, for the optimizer model.
        constraints: what every prompt must keep.
        guards_examples: whether new prompts must not copy ``train`` examples.
        program: answers examples in place of a single call; ``None`` for a call.
        starts_from_goal: whether the optimizer model writes the prompts that the search tries first, from the goal.
    """

    name: str
    initial: Prompt
    examples: Mapping[Split, tuple[Example, ...]]
    scorer: Scorer | Rubric
    answer_format: AnswerFormat = field(default_factory=AnswerFormat)
    group: str = ""
    counts_as: str = ""
    given: tuple[Prompt, ...] = ()
    goal: str | None = None
    constraints: Constraints = field(default_factory=Constraints)
    guards_examples: bool = True
    starts_from_goal: bool = False
    program: ProgramSpec | None = None

    @property
    def has_first_prompts(self) -> bool:
        """Whether a search begins with a step whose prompts are not made from the initial one."""
        return bool(self.given) or self.starts_from_goal

    @property
    def is_template(self) -> bool:
        """Whether the prompt contains the input: see ``gpo.evaluation.prompt_template``."""
        return self.answer_format.position is Position.TEMPLATE

    def prompt_problem(self, prompt: Prompt) -> str | None:
        """Why the task model cannot be asked with a prompt, in words that follow "the prompt"; ``None`` if it can."""
        if self.program is not None:
            return self.program.problem(prompt) or lost_placeholders(self.initial, prompt)
        return template_problem(self.initial, prompt) if self.is_template else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the prompts that are optimized together; empty for one prompt."""
        return self.program.names if self.program is not None and len(self.program.names) > 1 else ()


def function_digests(task: Task) -> dict[str, str]:
    """The user's functions that decide scores: the option that names each → a digest of its text.

    Raises:
        EvaluationError: one cannot be loaded.
    """
    functions: dict[str, FunctionReference] = {}
    if isinstance(task.scorer, CustomScorer):
        functions["answer.metric"] = task.scorer.metric
    elif isinstance(task.scorer, ParsedScorer):
        functions["answer.parser"] = task.scorer.parser
    if task.program is not None and isinstance(task.program.function, FunctionReference):
        functions["program.function"] = task.program.function
    return {option: function.digest() for option, function in functions.items()}


def fingerprint(task: Task) -> str:
    """Sixteen hexadecimal digits that change with any example of the task, demonstrations included, and their order.

    They cover the texts of placeholders, and the columns that the user's own metric can read.
    """
    digest = blake2b(digest_size=8)
    for split, examples in (*sorted(task.examples.items()), ("shots", task.answer_format.demonstrations)):
        for example in examples:
            texts = [example.placeholder_texts] if example.placeholder_texts else []
            rows = [dict(example.row)] if example.row else []
            digest.update(json.dumps([split, example.input, *example.targets, *texts, *rows], default=str).encode())
    return digest.hexdigest()
