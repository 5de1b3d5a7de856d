"""Section ``tasks``: what the prompts are optimized for."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cluster.config.answers import AnswerConfig
from cluster.config.data import (
    ALL,
    TASK_NAME,
    BenchmarkConfig,
    FieldsConfig,
    FilesConfig,
    HuggingFaceConfig,
    data_kind,
)
from cluster.config.section import Section
from gpo.data.loaded import LoadedTask
from gpo.data.splits import sampled
from gpo.data.task import Split, Task
from gpo.errors import ConfigError
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.prompt import Prompt

DEFAULT_PROMPT = "Let's think step by step."


class TaskConfig(Section):
    """One task, or several of a benchmark with the same settings."""

    # The name has no default value, but may be left out with a benchmark.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("name"))

    name: Annotated[str, Field(pattern=TASK_NAME)]
    """Letters, digits, ``.``, ``_`` and ``-``; names folders and rows. Left out: the benchmark's own name."""
    data: Annotated[
        Annotated[FilesConfig, Tag("files")]
        | Annotated[BenchmarkConfig, Tag("a benchmark")]
        | Annotated[HuggingFaceConfig, Tag("a huggingface")],
        Discriminator(data_kind),
    ]
    fields: FieldsConfig | None = None
    """Not with a benchmark; left out: columns ``input`` and ``target``."""
    prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = DEFAULT_PROMPT
    """The initial prompt."""
    position: Position = Position.QUESTION_END
    """Where the prompt stands: question_end, question_begin, before_question, answer_begin or system."""
    question_marks: bool = False
    """Mark the question with "Q:" and the answer with "A:"."""
    shots: NonNegativeInt = 0
    """Solved examples that the task model is shown before each question: of the data's few-shot examples the first, or,
    where it has none, some of ``train``, which lacks them then."""
    answer: AnswerConfig = AnswerConfig()

    @model_validator(mode="before")
    @classmethod
    def _name_of_benchmark(cls, task: Any) -> Any:
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            return task
        data = task["data"]
        own, benchmark = data.get("name"), data.get("benchmark")
        if benchmark and (own == ALL or isinstance(own, list | tuple)):
            if "name" in task:
                raise PydanticCustomError(
                    "one_name",
                    "is one name for several tasks; leave it out, each is called as in its benchmark",
                    {"at": "name"},
                )
            # Until each has its own, see one_each.
            own = benchmark
        if "name" not in task and (own or benchmark):
            # What cannot be a name is told of where it stands, in data.
            names = (name for name in (own, benchmark) if isinstance(name, str) and re.fullmatch(TASK_NAME, name))
            return {"name": next(names, "unnamed"), **task}
        return task

    def build(self, where: str, val_size: PositiveInt | None, test_size: PositiveInt | None) -> Task:
        """Load and check the task.

        Args:
            where: this section's place, for errors. They name the task, too: an entry may have stood for several
                tasks, and then places are not those in the user's file.
            val_size: at most so many examples of ``val``; likewise ``test_size``.

        Raises:
            ConfigError: the data cannot be used.
        """
        try:
            return self._built(where, val_size, test_size)
        except ConfigError as error:
            raise ConfigError(error.field, f"task {self.name}: {error.problem}", error.remedy) from None

    def _built(self, where: str, val_size: PositiveInt | None, test_size: PositiveInt | None) -> Task:
        splits, demonstrations = self._load(where).with_shots(self.shots, where=where)
        examples = [example for split in (*splits.values(), demonstrations) for example in split]
        is_benchmark = isinstance(self.data, BenchmarkConfig)
        known = self.data.known if isinstance(self.data, BenchmarkConfig) else None
        return Task(
            name=self.name,
            initial=Prompt(self.prompt),
            examples={
                Split.TRAIN: splits[Split.TRAIN],
                Split.VAL: sampled(splits[Split.VAL], val_size),
                Split.TEST: sampled(splits[Split.TEST], test_size),
            },
            scorer=self.answer.scorer(examples, f"{where}.answer", known),
            answer_format=AnswerFormat(
                self.position, self.answer.rounds or (2 if is_benchmark else 1), self.question_marks, demonstrations
            ),
            group=known.group if known else "",
            counts_as=known.counts_as if known else "",
        )

    def _load(self, where: str) -> LoadedTask:
        if isinstance(self.data, BenchmarkConfig):
            if self.fields is not None:
                raise ConfigError(f"{where}.fields", "a benchmark knows its own columns", "remove fields")
            return self.data.load(f"{where}.data")
        fields = (self.fields or FieldsConfig()).build(f"{where}.fields")
        return self.data.load(fields, f"{where}.data")


def one_each(tasks: tuple[TaskConfig, ...]) -> tuple[TaskConfig, ...]:
    """The tasks, an entry for several tasks of a benchmark replaced by one for each, in the order of their names."""
    return tuple(one for task in tasks for one in _one_each(task))


def _one_each(task: TaskConfig) -> tuple[TaskConfig, ...]:
    entries = task.data.entries if isinstance(task.data, BenchmarkConfig) else ()
    if entries in ((), (task.data,)):
        return (task,)
    return tuple(task.model_copy(update={"name": entry.name, "data": entry}) for entry in entries)


# Checked before they are told apart, so that errors show the places in the user's file.
Tasks = Annotated[tuple[TaskConfig, ...], Field(min_length=1), AfterValidator(one_each)]
"""The section as a whole."""
