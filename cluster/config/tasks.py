"""Section ``tasks``: what the prompts are optimized for."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, PositiveInt, StringConstraints, Tag, model_validator

from cluster.config.answers import AnswerConfig
from cluster.config.data import BenchmarkConfig, FieldsConfig, FilesConfig, data_kind
from cluster.config.section import Section
from gpo.answering import AnswerFormat, Position
from gpo.datasets.benchmarks import BENCHMARKS
from gpo.datasets.files import Fields, read_examples
from gpo.datasets.splits import Splits, require_disjoint, sampled
from gpo.errors import ConfigError
from gpo.prompt import Prompt
from gpo.tasks import Split, Task

DEFAULT_PROMPT = "Let's think step by step."


class TaskConfig(Section):
    """One task."""

    # The name has no default value, but may be left out with a benchmark.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("name"))

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Letters, digits, ``.``, ``_`` and ``-``; names folders and rows. Left out: the benchmark's own name."""
    data: Annotated[
        Annotated[FilesConfig, Tag("files")] | Annotated[BenchmarkConfig, Tag("benchmark")], Discriminator(data_kind)
    ]
    fields: FieldsConfig | None = None
    """Only with files; left out: columns ``input`` and ``target``."""
    prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = DEFAULT_PROMPT
    """The initial prompt."""
    position: Position = Position.QUESTION_END
    """Where the prompt stands: question_end, question_begin, before_question, answer_begin or system."""
    question_marks: bool = False
    """Mark the question with "Q:" and the answer with "A:"."""
    answer: AnswerConfig = AnswerConfig()

    @model_validator(mode="before")
    @classmethod
    def _name_of_benchmark(cls, task: Any) -> Any:
        if isinstance(task, dict) and "name" not in task and isinstance(task.get("data"), dict):
            data = task["data"]
            own = data.get("name") or data.get("benchmark")
            return {"name": own, **task} if own else task
        return task

    def build(self, where: str, val_size: PositiveInt | None, test_size: PositiveInt | None) -> Task:
        """Load and check the task.

        Args:
            where: this section's place, for errors.
            val_size: at most so many examples of ``val``; likewise ``test_size``.

        Raises:
            ConfigError: the data cannot be used.
        """
        splits = self._splits(where)
        examples = [example for split in splits.values() for example in split]
        is_benchmark = isinstance(self.data, BenchmarkConfig)
        return Task(
            name=self.name,
            initial=Prompt(self.prompt),
            examples={
                Split.TRAIN: splits[Split.TRAIN],
                Split.VAL: sampled(splits[Split.VAL], val_size),
                Split.TEST: sampled(splits[Split.TEST], test_size),
            },
            scorer=self.answer.scorer(examples, f"{where}.answer"),
            answer_format=AnswerFormat(
                self.position, self.answer.rounds or (2 if is_benchmark else 1), self.question_marks
            ),
        )

    def _splits(self, where: str) -> Splits:
        if isinstance(self.data, BenchmarkConfig):
            if self.fields is not None:
                raise ConfigError(f"{where}.fields", "a benchmark knows its own columns", "remove fields")
            return BENCHMARKS[self.data.benchmark].load(self.data.root, self.data.name, where=f"{where}.data")
        named = self.fields or FieldsConfig()
        fields = Fields(named.input, named.target)
        files = {Split.TRAIN: self.data.train, Split.VAL: self.data.val, Split.TEST: self.data.test}
        splits = {split: read_examples(path, fields, where=f"{where}.data.{split}") for split, path in files.items()}
        require_disjoint(splits, where=f"{where}.data")
        return splits
