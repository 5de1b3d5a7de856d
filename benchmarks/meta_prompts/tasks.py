"""Small tasks on which the wording of the prompt decides whether the 135M model answers them.

The two tasks of the quickstart, and four whose sentences are made from a list of patterns. The initial prompts are
short questions, as people write them first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from cluster.config.answers import AnswerConfig
from gpo.data.example import Example
from gpo.data.files import Fields, read_examples
from gpo.data.task import Split, Task
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.prompt import Prompt

NUM_TRAIN, NUM_VAL, NUM_TEST = 20, 24, 40
_QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart"
_PEOPLE = (
    "My sister", "The old farmer", "Our teacher", "The nurse", "A young man", "The tourist", "My neighbour",
    "The pilot", "Her uncle", "The baker",
)  # fmt: skip
_SENTENCES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "city": (
        ("Paris", "Rome", "Tokyo", "Berlin", "Madrid", "London", "Vienna"),
        ("spent a week in {} with friends", "moved to {} last year", "dreams of {} at night", "lost a bag in {}"),
    ),
    "animal": (
        ("dog", "cat", "horse", "cow", "rabbit", "sheep", "goat", "duck"),
        ("fed the {} in the morning", "took a photo of a {} in the field", "was followed home by a {}", "sold the {}"),
    ),
    "day": (
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        ("will visit us on {}", "lost the keys on {}", "has a meeting on {} at noon", "left the town on {} evening"),
    ),
}
"""Task → its labels, and what somebody does in its sentences."""
_INITIAL: Mapping[str, str] = {
    "sentiment": "Is this review positive or negative?",
    "language": "Tell me the language.",
    "city": "Which place is it?",
    "animal": "What animal is it?",
    "day": "When?",
}
NAMES = tuple(_INITIAL)


def make_task(name: str) -> Task:
    """The task of this name: 20 ``train``, 24 ``val`` and 40 ``test`` examples."""
    examples = _sentences(*_SENTENCES[name]) if name in _SENTENCES else _quickstart(name)
    ends = {Split.TRAIN: NUM_TRAIN, Split.VAL: NUM_TRAIN + NUM_VAL, Split.TEST: NUM_TRAIN + NUM_VAL + NUM_TEST}
    starts = dict(zip(ends, (0, *ends.values()), strict=False))
    return Task(
        name=name,
        initial=Prompt(_INITIAL[name]),
        examples={split: tuple(examples[starts[split] : end]) for split, end in ends.items()},
        scorer=AnswerConfig.model_validate({"kind": "label"}).scorer(examples, "answer", None),
        answer_format=AnswerFormat(Position.QUESTION_BEGIN),
    )


def _sentences(labels: Sequence[str], patterns: Sequence[str]) -> list[Example]:
    each = [
        Example(f"{somebody} {pattern.format(label)}.", (label,))
        for label in labels
        for pattern in patterns
        for somebody in _PEOPLE
    ]
    return Random(0).sample(each, NUM_TRAIN + NUM_VAL + NUM_TEST)


def _quickstart(name: str) -> list[Example]:
    read = (
        read_examples(_QUICKSTART / name / f"{split}.jsonl", Fields("text", "label"), where=name) for split in Split
    )
    examples = [example for split in read for example in split]
    return Random(0).sample(examples, NUM_TRAIN + NUM_VAL + NUM_TEST)
