"""Section ``tasks``: what the prompts are optimized for, and where the examples come from."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cluster.config.answers import AnswerConfig
from cluster.config.section import ConfigPath, Section, absolute
from gpo.data.benchmarks import BENCHMARKS
from gpo.data.catalogue import BenchmarkTask, known_task, tasks_of
from gpo.data.files import Fields, read_examples
from gpo.data.huggingface import HubDataset
from gpo.data.splits import LoadedTask, published, require_disjoint, sampled
from gpo.data.task import Split, Task
from gpo.data.template import Template
from gpo.errors import ConfigError
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.prompt import Prompt

ALL = "all"
TASK_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class FieldsConfig(Section):
    """Which columns hold what."""

    input: str | None = None
    """The column with the question, text or ticket. Left out: ``input``, unless there is a template."""
    template: str | None = None
    """Instead of ``input``, a text made of several columns: a Jinja template with the columns as its variables, such as
    ``{{ context }}``; ``row["Two words"]`` is a column whose name is no word, ``row.row`` one that is called row."""
    target: str | None = None
    """The column with the right answer, or a list of right answers. Left out: ``target``, unless there is a
    template."""
    target_template: str | None = None
    """Instead of ``target``, likewise."""

    @model_validator(mode="after")
    def _templates_are_right(self) -> Self:
        for option, template, column in (
            ("template", self.template, self.input),
            ("target_template", self.target_template, self.target),
        ):
            if template is None:
                continue
            if column is not None:
                other = "input" if option == "template" else "target"
                raise PydanticCustomError(
                    "template", "stands beside {other}; keep one of the two", {"at": option, "other": other}
                )
            try:
                Template(template, option).check()
            except ConfigError as error:
                raise PydanticCustomError(
                    "template", "{problem}; {remedy}", {"at": option, "problem": error.problem, "remedy": error.remedy}
                ) from None
        return self

    def build(self, where: str) -> Fields:
        """Input and target as reading needs them; ``where`` is this section's place, for errors."""
        return Fields(
            self.input or "input" if self.template is None else Template(self.template, f"{where}.template"),
            self.target or "target"
            if self.target_template is None
            else Template(self.target_template, f"{where}.target_template"),
        )


class FilesConfig(Section):
    """Files of examples, JSON Lines or CSV."""

    train: ConfigPath
    """Shown to the optimizer model, a few at a time."""
    val: ConfigPath
    """Steers the search."""
    test: ConfigPath
    """Scored for the initial and the final prompt only."""
    few_shot: ConfigPath | None = None
    """Shown to the task model where ``shots`` asks for it. Left out: drawn from ``train``."""

    def load(self, fields: Fields, where: str) -> LoadedTask:
        """The examples.

        Raises:
            ConfigError: a file cannot be used, or an input stands in two splits.
        """
        files = {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}
        splits = {split: read_examples(path, fields, where=f"{where}.{split}") for split, path in files.items()}
        require_disjoint(splits, where=where)
        if self.few_shot is None:
            return LoadedTask(splits)
        few_shot = read_examples(self.few_shot, fields, where=f"{where}.few_shot")
        for split in (Split.VAL, Split.TEST):
            require_disjoint({"few_shot": few_shot, str(split): splits[split]}, where=where)
        return LoadedTask(splits, few_shot)


class BenchmarkConfig(Section):
    """A known benchmark, in the folder layout of the reference runs or as its authors publish it."""

    benchmark: Literal["bbh", "mmlu", "gsm8k", "wsc", "webnlg"]
    name: str | tuple[str, ...] | None = None
    """One of its tasks, e.g. ``navigate``; a list of them, or ``all``, stands for one entry each; left out where the
    benchmark is a single one."""
    root: ConfigPath
    """The benchmark's folder, or the folder that holds it."""

    @field_validator("name", mode="before")
    @classmethod
    def _name_can_be_one(cls, name: Any) -> Any:
        for one in name if isinstance(name, list | tuple) else () if name is None else (name,):
            if not isinstance(one, str) or not re.fullmatch(TASK_NAME, one):
                shown = repr(one) if len(repr(one)) <= 40 else f"{repr(one)[:40]}…"
                raise PydanticCustomError(
                    "task_name", "{name} is not a task's name; name one, a list of them, or all", {"name": shown}
                )
        return name

    @model_validator(mode="after")
    def _listed_tasks_are_known(self) -> Self:
        if self.name is None and len(tasks_of(self.benchmark)) > 1:
            raise PydanticCustomError("no_task", "is missing; name one, a list of them, or all", {"at": "name"})
        if self.name == ():
            raise PydanticCustomError("no_task", "names no task; name some, or write all", {"at": "name"})
        if isinstance(self.name, tuple):
            known = [task.name for task in tasks_of(self.benchmark)]
            for name in self.name:
                if name not in known:
                    near = get_close_matches(name.lower(), known, n=3)
                    remedy = f"did you mean {' or '.join(near)}?" if near else f"choose among: {', '.join(known)}"
                    raise PydanticCustomError(
                        "unknown_task",
                        "'{name}' is not a task of {benchmark}; {remedy}",
                        {"at": "name", "name": name, "benchmark": self.benchmark, "remedy": remedy},
                    )
        return self

    @property
    def entries(self) -> tuple[BenchmarkConfig, ...]:
        """The entry once for each of the tasks that it stands for; itself where it stands for one."""
        if self.name == ALL:
            names = tuple(task.name for task in tasks_of(self.benchmark))
        elif isinstance(self.name, tuple):
            names = self.name
        else:
            return (self,)
        return tuple(self.model_copy(update={"name": name}) for name in names)

    @property
    def known(self) -> BenchmarkTask | None:
        """The catalogue's entry for the task; ``None`` for one that a user has added to the folder."""
        return known_task(self.benchmark, self._task)

    @property
    def _task(self) -> str | None:
        if isinstance(self.name, tuple):
            raise TypeError("several tasks are loaded entry by entry, see entries")
        return self.name

    def load(self, where: str) -> LoadedTask:
        """The examples, repeats removed.

        Raises:
            ConfigError: there is no such task, or its files cannot be used.
        """
        return BENCHMARKS[self.benchmark].load(self.root, self._task, where=where)


def _local(name: Any, info: ValidationInfo) -> Any:
    """A folder as an absolute path; names of data sets never begin like a path."""
    if not isinstance(name, str) or not name.startswith((".", "/", "~")):
        return name
    return str(absolute(name, info))


class HuggingFaceConfig(Section):
    """A data set of the Hugging Face Hub; it needs the extra ``huggingface``."""

    huggingface: Annotated[str, Field(min_length=1), BeforeValidator(_local)]
    """Its name, ``owner/name``; or a folder of files that ``datasets`` reads, beginning with ``.``, ``/`` or ``~``."""
    config: str | None = None
    """Which of its configurations; left out where it has one."""
    revision: str | None = None
    """Branch, tag or commit. Left out: the newest."""
    train: str
    """Name of a split, or a part of one such as ``train[:80%]``. Shown to the optimizer model, a few at a time."""
    val: str
    """Likewise. Steers the search."""
    test: str
    """Likewise. Scored for the initial and the final prompt only."""
    few_shot: str | None = None
    """Likewise. Shown to the task model where ``shots`` asks for it. Left out: drawn from ``train``."""

    def load(self, fields: Fields, where: str) -> LoadedTask:
        """The examples, repeats removed.

        Raises:
            ConfigError: the data set cannot be loaded, or a split or a column is not there.
        """
        source = HubDataset(self.huggingface, self.config, self.revision)
        named = {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}
        splits = {split: source.read(part, fields, where=where, at=split) for split, part in named.items()}
        few_shot = source.read(self.few_shot, fields, where=where, at="few_shot") if self.few_shot else None
        return published(splits, few_shot, where=where)


def data_kind(value: Any) -> str:
    """Which of the sections is meant, as the tag in the union of ``TaskConfig.data``.

    A tag is no option's name: the places in pydantic's errors hold both, and only options are shown to users.
    """
    for option, section in (("benchmark", BenchmarkConfig), ("huggingface", HuggingFaceConfig)):
        if option in value if isinstance(value, dict) else isinstance(value, section):
            return f"a {option}"
    return "files"


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
