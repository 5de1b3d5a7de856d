"""A task: labelled examples in three splits, and how an answer to them is asked for and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gpo.data.example import Example
from gpo.evaluation.answer_format import AnswerFormat
from gpo.evaluation.metrics import Rubric, Scorer
from gpo.prompt import Prompt


class Split(StrEnum):
    """Only ``VAL`` steers the search; ``TEST`` is scored for the initial and the final prompt, never to choose."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Task:
    """One thing that a language model shall do well.

    Attributes:
        name: letters, digits, ``.``, ``_`` and ``-``; names the task in files, metrics and tables.
        initial: the prompt that the search starts from.
        examples: the examples of each split, in a fixed order; ``VAL`` and ``TEST`` are not empty.
        answer_format: how prompt and example become a conversation.
        scorer: judges an answer against the example's target; a rubric has a language model do it.
        group: the heading under which the score is reported with that of others; empty where there is none.
        counts_as: what the task is in averages, together with others of the same value; empty where it is itself.
    """

    name: str
    initial: Prompt
    examples: Mapping[Split, tuple[Example, ...]]
    scorer: Scorer | Rubric
    answer_format: AnswerFormat = field(default_factory=AnswerFormat)
    group: str = ""
    counts_as: str = ""
