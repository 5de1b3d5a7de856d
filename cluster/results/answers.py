"""What the task model answered with two prompts of a search, example by example, read from the run's folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from actors.answers import RecordedAnswer, read_answers
from actors.folder import Folder
from actors.search import SearchKey
from gpo.checkpoint import Checkpoint
from gpo.data.task import Split, Task
from gpo.errors import ConfigError, StorageError

Outcome = Literal["broken", "fixed", "wrong", "right", "unscored", "unasked"]
OUTCOMES: tuple[Outcome, ...] = ("broken", "fixed", "wrong", "right", "unscored", "unasked")
"""In the order in which people look at them."""


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An example as its files have it."""

    input: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComparedExample:
    """An example with the answers to two prompts; ``None`` where no answer is recorded.

    Attributes:
        index: position in the split, from 0.
    """

    split: Split
    index: int
    example: ShownExample
    before: RecordedAnswer | None
    after: RecordedAnswer | None

    @property
    def outcome(self) -> Outcome:
        """``fixed`` or ``broken`` if the second prompt scores higher or lower; else ``right`` or ``wrong``."""
        if self.after is None:
            return "unasked"
        after = self.after.value
        if after is None or (self.before is not None and self.before.value is None):
            return "unscored"
        before = self.before.value if self.before is not None else None
        if before is None:
            return "unasked"
        if after != before:
            return "fixed" if after > before else "broken"
        return "right" if after >= 1 else "wrong"


def encoded_examples(task: Task) -> bytes:
    """The examples of ``val`` and ``test``, as a run's folder keeps them."""
    rows = [
        json.dumps([str(split), index, example.input, list(example.targets)], ensure_ascii=False)
        for split in (Split.VAL, Split.TEST)
        for index, example in enumerate(task.examples[split])
    ]
    return gzip.compress("".join(f"{row}\n" for row in rows).encode(errors="replace"), mtime=0)


def examples_name(task: str) -> str:
    """The file of a task's examples in the run's folder."""
    return f"examples/{task}.jsonl.gz"


def read_examples(folder: Folder, task: str) -> dict[tuple[Split, int], ShownExample]:
    """The examples of a task; empty if the run has kept none.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        content = folder.read(examples_name(task))
        lines = gzip.decompress(content).decode().split("\n") if content else []
        rows = [json.loads(line) for line in lines if line]
        return {(Split(split), index): ShownExample(str(text), tuple(targets)) for split, index, text, targets in rows}
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise StorageError(f"{folder.path(examples_name(task))} cannot be read: {error}") from None


@dataclass(frozen=True)
class SearchAnswers:
    """The recorded answers of one search.

    Attributes:
        by_prompt: ID of a prompt → split and index → its last answer.
    """

    examples: Mapping[tuple[Split, int], ShownExample]
    by_prompt: Mapping[str, Mapping[tuple[Split, int], RecordedAnswer]]

    @classmethod
    def read(cls, folder: Folder, key: SearchKey, prompts: Collection[str] | None = None) -> SearchAnswers:
        """The answers of a search in a run's folder; empty if none are recorded.

        Args:
            prompts: IDs of the prompts whose answers are wanted; ``None`` for all.

        Raises:
            StorageError: they cannot be read.
        """
        by_prompt: dict[str, dict[tuple[Split, int], RecordedAnswer]] = {}
        for answer in read_answers(folder / "trajectories", key, prompts):
            by_prompt.setdefault(answer.prompt, {})[answer.split, answer.index] = answer
        return cls(read_examples(folder, key.task) if by_prompt else {}, by_prompt)

    def example(self, split: Split, index: int) -> ShownExample:
        """An example, or a sentence in its place if it is not recorded."""
        return self.examples.get((split, index)) or ShownExample("(the example is not recorded)", ())

    def compared(self, before: str, after: str) -> list[ComparedExample]:
        """The examples that either prompt has answered, by outcome, split and number.

        Args:
            before, after: IDs of prompts.
        """
        first, second = self.by_prompt.get(before, {}), self.by_prompt.get(after, {})
        found = [
            ComparedExample(split, index, self.example(split, index), first.get(at), second.get(at))
            for at in dict.fromkeys([*first, *second])
            for split, index in [at]
        ]
        splits = list(Split)
        return sorted(found, key=lambda one: (OUTCOMES.index(one.outcome), splits.index(one.split), one.index))


def prompt_id(checkpoint: Checkpoint, name: str, option: str = "--prompt") -> str:
    """The ID of a prompt that a user names: ``initial``, ``best``, or the beginning of an ID.

    Args:
        option: that names it, for errors.

    Raises:
        ConfigError: there is no such prompt, or several begin like that.
    """
    trajectory = checkpoint.trajectory
    if name in ("initial", "best"):
        return (trajectory.initial if name == "initial" else trajectory.best).prompt.id
    found = {candidate.prompt.id for candidate in trajectory.history if candidate.prompt.id.startswith(name)}
    if len(found) == 1:
        return found.pop()
    problem = f"{name!r} is the beginning of {len(found)} prompts' IDs" if found else f"there is no prompt {name!r}"
    raise ConfigError(option, problem, "write initial, best, or an ID as gpo show --prompts lists it")


def counts(compared: Iterable[ComparedExample]) -> dict[Outcome, int]:
    """How many examples have each outcome."""
    outcomes: Sequence[Outcome] = [one.outcome for one in compared]
    return {outcome: outcomes.count(outcome) for outcome in OUTCOMES}
