"""Section ``tasks``: what the prompts are optimized for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, PositiveInt, StringConstraints, Tag, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.section import ConfigPath, Section
from gpo.answering import AnswerFormat, Position
from gpo.datasets.benchmarks import BENCHMARKS, answer_kind
from gpo.datasets.files import Fields, read_examples
from gpo.datasets.splits import Splits, require_disjoint, sampled
from gpo.errors import ConfigError
from gpo.examples import Example
from gpo.prompt import Prompt
from gpo.scoring import BooleanScorer, ChoiceScorer, ExactScorer, LabelScorer, NumberScorer, RougeScorer, Scorer
from gpo.tasks import Split, Task

DEFAULT_PROMPT = "Let's think step by step."


class FilesConfig(Section):
    """Three files of examples, JSON Lines or CSV."""

    train: ConfigPath
    """Shown to the optimizer model, a few at a time."""
    val: ConfigPath
    """Steers the search."""
    test: ConfigPath
    """Scored for the initial and the final prompt only."""


class BenchmarkConfig(Section):
    """A known benchmark in its own folder layout."""

    benchmark: Literal["bbh", "mmlu", "gsm8k", "wsc", "webnlg"]
    name: str | None = None
    """One of its tasks, e.g. ``navigate``; left out where the benchmark is a single one."""
    root: ConfigPath
    """The benchmark's folder, or the folder that holds it."""


class FieldsConfig(Section):
    """Which columns hold what."""

    input: str = "input"
    """The question, text or ticket."""
    target: str = "target"
    """The right answer, or a list of right answers."""


class AnswerConfig(Section):
    """How answers are asked for and judged."""

    kind: Literal["choice", "boolean", "number", "exact", "label", "text"] | None = None
    """``choice``: an option such as (B). ``boolean``: yes or no, true or false. ``number``. ``exact``: the target
    itself. ``label``: names the target and no other label. ``text``: ROUGE-L. Left out: read off the targets."""
    rounds: Literal[1, 2] | None = None
    """2 asks once more for the bare answer. Left out: 1 for files, 2 for benchmarks."""
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """The labels of kind ``label``. Left out: every target in the data."""

    @model_validator(mode="after")
    def _labels_are_used(self) -> Self:
        if self.labels is not None and self.kind != "label":
            raise PydanticCustomError(
                "labels", "goes with kind: label only; set that kind, or leave it out", {"at": "labels"}
            )
        return self

    def scorer(self, examples: list[Example], where: str) -> Scorer:
        """The scorer for these examples.

        Args:
            where: this section's place, for errors.

        Raises:
            ConfigError: it would find many of the targets themselves wrong.
        """
        kind = self.kind or answer_kind(examples)
        scorer = self._label_scorer(examples) if kind == "label" else _SCORERS[kind]()
        wrong = [example.target for example in examples if scorer.score(example.target, example) < 1]
        # A few faulty targets are part of some published benchmarks.
        if len(wrong) > max(1, _FAULTY * len(examples)):
            shown = wrong[0] if len(wrong[0]) <= 40 else f"{wrong[0][:40]}…"
            raise ConfigError(
                f"{where}.{'labels' if self.labels else 'kind'}",
                f"{kind!r} would judge {len(wrong)} of {len(examples)} targets wrong, such as {shown!r}",
                "choose the kind or the labels that fit the data, or correct those targets",
            )
        return scorer

    def _label_scorer(self, examples: list[Example]) -> LabelScorer:
        found = {target for example in examples for target in example.targets}
        return LabelScorer(self.labels or tuple(sorted(found)))


_SCORERS: dict[str, Callable[[], Scorer]] = {
    "choice": ChoiceScorer,
    "boolean": BooleanScorer,
    "number": NumberScorer,
    "exact": ExactScorer,
    "text": RougeScorer,
}
_FAULTY = 0.05
"""Share of targets that may be faulty."""


def _data_kind(value: Any) -> str:
    has_benchmark = "benchmark" in value if isinstance(value, dict) else isinstance(value, BenchmarkConfig)
    return "benchmark" if has_benchmark else "files"


class TaskConfig(Section):
    """One task."""

    # The name has no default value, but may be left out with a benchmark.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("name"))

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Letters, digits, ``.``, ``_`` and ``-``; names folders and rows. Left out: the benchmark's own name."""
    data: Annotated[
        Annotated[FilesConfig, Tag("files")] | Annotated[BenchmarkConfig, Tag("benchmark")], Discriminator(_data_kind)
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
