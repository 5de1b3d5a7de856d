"""Section ``tasks``: what the prompts are optimized for, and where the examples come from."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cluster.config.answers import AnswerConfig
from cluster.config.functions import quoted
from cluster.config.programs import PartName, ProgramConfig, PromptsConfig, own_prompts
from cluster.config.prompts import (
    MessagesConfig,
    PromptConfig,
    PromptFileConfig,
    PromptRunConfig,
    PromptText,
    known_texts,
)
from cluster.config.section import LOCATION, ConfigPath, OptionInfo, Section, absolute, option_of, unfit
from gpo.data.benchmarks import BENCHMARKS
from gpo.data.catalogue import BenchmarkTask, known_task, tasks_of
from gpo.data.constraints import LANGUAGE_CODES, Constraints
from gpo.data.example import Example
from gpo.data.files import Fields, read_numbered
from gpo.data.huggingface import HubDataset
from gpo.data.splits import (
    LoadedTask,
    divided,
    published,
    require_disjoint,
    row_warnings,
    sampled,
    with_equal_numbers_alike,
)
from gpo.data.task import Split, Task
from gpo.data.template import Template
from gpo.errors import ConfigError
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.program import ProgramSpec
from gpo.evaluation.prompt_template import initial_problem, placeholders
from gpo.prompt import Prompt, joined_parts

log = logging.getLogger(__name__)

ALL = "all"
TASK_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class FieldsConfig(Section):
    """Which columns hold the input and the target."""

    input: str | None = None
    """Column with the input, such as a question or a text. Default: ``input``, unless ``template`` is set. With
    ``position: template``, the input tells examples apart in splits, reports and meta-prompts; default: the columns of
    the placeholders."""
    template: str | None = None
    """Instead of ``input``, a Jinja template that makes a text from several columns, which are its variables, as in
    ``{{ context }}``. ``row["Two words"]`` is a column whose name is not an identifier, ``row.row`` the column row."""
    target: str | None = None
    """Column with the right answer, or with a list of right answers. Default: ``target``, unless ``target_template`` is
    set."""
    target_template: str | None = None
    """Instead of ``target``, a Jinja template as in ``template``."""

    @model_validator(mode="after")
    def _templates_are_valid(self) -> Self:
        for option, template, column in (
            ("template", self.template, self.input),
            ("target_template", self.target_template, self.target),
        ):
            if template is None:
                continue
            if column is not None:
                other = "input" if option == "template" else "target"
                raise unfit(f"is set as well as {other}; keep one of the two", at=option)
            try:
                Template(template, option).check()
            except ConfigError as error:
                raise unfit(f"{error.problem}; {error.remedy}", at=option) from None
        return self

    @property
    def target_columns(self) -> tuple[str, ...]:
        """The columns that hold the right answer, or parts of it."""
        if self.target_template is None:
            return (self.target or "target",)
        return tuple(sorted(Template(self.target_template, "target_template").variables))

    def build(
        self, where: str, placeholders: tuple[Template, ...] = (), *, keeps_rows: bool = False, is_program: bool = False
    ) -> Fields:
        """Input and target as readers of files need them.

        Args:
            where: this section's path, for errors.
            placeholders: those of the task's prompt, if it is a template.
            keeps_rows: see ``gpo.data.files.Fields``.
            is_program: whether a program reads the columns, so that none of them is the input.
        """
        default = None if placeholders or is_program else "input"
        return Fields(
            self.input or default if self.template is None else Template(self.template, f"{where}.template"),
            self.target or "target"
            if self.target_template is None
            else Template(self.target_template, f"{where}.target_template"),
            placeholders,
            keeps_rows,
        )


class FilesConfig(Section):
    """Files of examples, JSON Lines or tables (``.csv``, ``.tsv``)."""

    train: Annotated[ConfigPath, LOCATION]
    """Examples that the optimizer model sees, a few at a time."""
    val: Annotated[ConfigPath, LOCATION]
    """Examples that candidates are scored on; they decide the search."""
    test: Annotated[ConfigPath, LOCATION]
    """Examples that only the initial and the best prompt are scored on."""
    few_shot: Annotated[ConfigPath | None, LOCATION] = None
    """Solved examples for the task model, if ``shots`` asks for some. Default: drawn from ``train``."""

    def load(self, fields: Fields, where: str) -> LoadedTask:
        """The examples.

        Raises:
            ConfigError: a file cannot be used, or two splits share an input.
        """
        files = {str(Split.TRAIN): self.train, str(Split.VAL): self.val, str(Split.TEST): self.test}
        read = _read({**files, "few_shot": self.few_shot}, fields, where)
        splits = {split: read[split] for split in Split}
        require_disjoint(splits, where=where)
        return LoadedTask(splits, _few_shot(read, splits, where))


def _read(files: Mapping[str, Path | None], fields: Fields, where: str) -> dict[str, tuple[Example, ...]]:
    """The examples of each option that names a file; a warning reports rows that repeat or contradict another."""
    paths = {option: path for option, path in files.items() if path}
    numbered = {option: read_numbered(path, fields, where=f"{where}.{option}") for option, path in paths.items()}
    read = with_equal_numbers_alike({option: tuple(lines.values()) for option, lines in numbered.items()})
    for option, lines in numbered.items():
        for warning in row_warnings(dict(zip(lines, read[option], strict=True))):
            log.warning("%s.%s (%s): %s", where, option, paths[option].name, warning)
    return read


def _few_shot(
    read: Mapping[str, tuple[Example, ...]], splits: Mapping[Split, tuple[Example, ...]], where: str
) -> tuple[Example, ...] | None:
    """The few-shot examples of a file, if there is one.

    Raises:
        ConfigError: one is in ``val`` or ``test``.
    """
    few_shot = read.get("few_shot")
    for split in (Split.VAL, Split.TEST) if few_shot is not None else ():
        require_disjoint({"few_shot": few_shot or (), str(split): splits[split]}, where=where)
    return few_shot


class SplitConfig(Section):
    """How one file is divided: shares below 1, or numbers of examples; repeated inputs count once."""

    train: PositiveFloat = 0.2
    """Examples that the optimizer model sees, a few at a time."""
    val: PositiveFloat = 0.4
    """Examples that candidates are scored on; they decide the search."""
    test: PositiveFloat = 0.4
    """Examples that only the initial and the best prompt are scored on."""
    seed: NonNegativeInt = 0
    """Seed of the random order. The same file and seed always give the same splits."""

    @property
    def sizes(self) -> dict[Split, float]:
        """The size of each split."""
        return {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        for split, size in self.sizes.items():
            if size > 1 and not size.is_integer():
                raise unfit(
                    f"{size} is neither a share nor a number of examples; use a share below 1 or a whole number",
                    at=str(split),
                )
        shares = sum(size for size in self.sizes.values() if size < 1)
        if shares > 1 + 1e-9:
            raise unfit(f"the shares of train, val and test are more than 1 together ({shares:g}); make one smaller")
        return self


class SplitFileConfig(Section):
    """One file of examples, which the program divides into ``train``, ``val`` and ``test``."""

    file: Annotated[ConfigPath, LOCATION]
    """All examples, as JSON Lines or a table (``.csv``, ``.tsv``)."""
    split: SplitConfig = SplitConfig()
    """The size of each split. The same input never ends in two splits; where there are at most 20 different targets,
    each split has the same share of every target."""
    few_shot: Annotated[ConfigPath | None, LOCATION] = None
    """Solved examples for the task model, if ``shots`` asks for some. Default: drawn from ``train``."""

    def load(self, fields: Fields, where: str) -> LoadedTask:
        """The examples.

        Raises:
            ConfigError: a file cannot be used, or a split would be empty.
        """
        read = _read({"file": self.file, "few_shot": self.few_shot}, fields, where)
        splits = divided(read["file"], self.split.sizes, self.split.seed, where=f"{where}.split")
        return LoadedTask(splits, _few_shot(read, splits, where))


class BenchmarkConfig(Section):
    """A known benchmark, in the folder layout of the reference runs or as its authors publish it."""

    benchmark: Literal["bbh", "mmlu", "gsm8k", "wsc", "webnlg"]
    """The benchmark."""
    name: str | tuple[str, ...] | None = None
    """One of its tasks, e.g. ``navigate``. A list of tasks, or ``all``, means one entry per task. Not needed if the
    benchmark has a single task."""
    root: Annotated[ConfigPath, LOCATION]
    """The benchmark's folder, or the folder that contains it."""

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_valid(cls, name: Any) -> Any:
        for one in name if isinstance(name, list | tuple) else () if name is None else (name,):
            if not isinstance(one, str) or not re.fullmatch(TASK_NAME, one):
                shown = repr(one) if len(repr(one)) <= 40 else f"{repr(one)[:40]}…"
                raise unfit(f"{shown} is not the name of a task; name one, a list of them, or all")
        return name

    @model_validator(mode="after")
    def _listed_tasks_are_known(self) -> Self:
        if self.name is None and len(tasks_of(self.benchmark)) > 1:
            raise unfit("is missing; name one, a list of them, or all", at="name")
        if self.name == ():
            raise unfit("names no task; name some, or write all", at="name")
        if isinstance(self.name, tuple):
            known = [task.name for task in tasks_of(self.benchmark)]
            for name in self.name:
                if name not in known:
                    near = get_close_matches(name.lower(), known, n=3)
                    remedy = f"did you mean {' or '.join(near)}?" if near else f"choose among: {', '.join(known)}"
                    raise unfit(f"'{name}' is not a task of {self.benchmark}; {remedy}", at="name")
        return self

    @property
    def entries(self) -> tuple[BenchmarkConfig, ...]:
        """The entries that this entry expands to, one per task."""
        if self.name == ALL:
            names = tuple(task.name for task in tasks_of(self.benchmark))
        elif isinstance(self.name, tuple):
            names = self.name
        else:
            return (self,)
        return tuple(self.model_copy(update={"name": name}) for name in names)

    @property
    def known(self) -> BenchmarkTask | None:
        """The task in the catalogue; ``None`` for a task that a user has added to the folder."""
        return known_task(self.benchmark, self._task)

    @property
    def _task(self) -> str | None:
        if isinstance(self.name, tuple):
            raise TypeError("this entry expands to several tasks: load each of its entries")
        return self.name

    def load(self, where: str) -> LoadedTask:
        """The examples, without duplicates.

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
    """A data set of the Hugging Face Hub; needs the extra ``huggingface``."""

    huggingface: Annotated[
        str, Field(min_length=1), BeforeValidator(_local), OptionInfo(may_change=True, posted="refused")
    ]
    """Name of the data set, ``owner/name``, or a folder that ``datasets`` can read, starting with ``.``, ``/`` or
    ``~``."""
    config: str | None = None
    """Configuration of the data set. Default: its only one."""
    revision: str | None = None
    """Branch, tag or commit. Default: the newest."""
    train: str
    """Split, or part of one such as ``train[:80%]``, with the examples that the optimizer model sees."""
    val: str
    """Split, or part of one, that candidates are scored on; it decides the search."""
    test: str
    """Split, or part of one, that only the initial and the best prompt are scored on."""
    few_shot: str | None = None
    """Split, or part of one, with solved examples for the task model, if ``shots`` asks for some. Default: drawn from
    ``train``."""

    def load(self, fields: Fields, where: str) -> LoadedTask:
        """The examples, without duplicates.

        Raises:
            ConfigError: the data set cannot be loaded, or a split or a column is missing.
        """
        source = HubDataset(self.huggingface, self.config, self.revision)
        named = {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}
        splits = {split: source.read(part, fields, where=where, at=split) for split, part in named.items()}
        few_shot = source.read(self.few_shot, fields, where=where, at="few_shot") if self.few_shot else None
        return published(with_equal_numbers_alike(splits), few_shot, where=where)


def data_kind(value: Any) -> str:
    """The tag of the section in the union of ``TaskConfig.data``.

    A tag differs from every option's name: locations in pydantic's errors contain both, and users see only options.
    """
    kinds = (
        ("benchmark", BenchmarkConfig), ("huggingface", HuggingFaceConfig), ("file", SplitFileConfig),
        ("split", SplitFileConfig),
    )  # fmt: skip
    option = option_of(value, kinds)
    return f"a {option}" if option else "files"


DEFAULT_PROMPT = "Let's think step by step."


class ConstraintsConfig(Section):
    """What every version of one prompt must keep."""

    must_keep: tuple[PromptText, ...] = ()
    """Texts that it must contain, word for word."""
    max_words: PositiveInt | None = None
    """Most words."""
    forbid: tuple[PromptText, ...] = ()
    """Words or phrases that it may not contain, in capitals or not."""
    language: Literal[LANGUAGE_CODES] | None = None  # type: ignore[valid-type]  # a tuple of literals
    """Its language, as a code such as ``en``."""

    def build(self) -> Constraints:
        """The constraints."""
        return Constraints(self.must_keep, self.max_words, self.forbid, self.language)


class TaskConfig(Section):
    """One task, or several of a benchmark with the same settings."""

    # The name has no default value, but is optional for a benchmark.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("name"))

    name: Annotated[str, Field(pattern=TASK_NAME)]
    """Name of the task in folders and tables: letters, digits, ``.``, ``_`` and ``-``. Default: the name in the
    benchmark."""
    data: Annotated[
        Annotated[FilesConfig, Tag("files")]
        | Annotated[SplitFileConfig, Tag("a file")]
        | Annotated[BenchmarkConfig, Tag("a benchmark")]
        | Annotated[HuggingFaceConfig, Tag("a huggingface")],
        Discriminator(data_kind),
    ]
    """Where the examples come from: three files, one file, a known benchmark, or a data set of the Hugging Face Hub."""
    fields: FieldsConfig | None = None
    """Which columns hold the input and the target; not for a benchmark. Default: ``input`` and ``target``."""
    goal: PromptText | None = None
    """What the task is, in a sentence or two; the optimizer model reads it."""
    prompt: PromptConfig | None = None
    """The initial prompt: a text, or the two messages ``system`` and ``user`` of a template. Or several prompts: a
    list, a file, or the best prompts of an earlier run. Then the first is the initial prompt, and the search tries the
    others first. Default: the text of ``goal``, and the search first tries prompts that the optimizer model writes from
    the goal and examples. Without a goal: "Let's think step by step.\""""
    must_keep: tuple[PromptText, ...] = ()
    """Texts that every prompt must contain, word for word."""
    max_words: PositiveInt | None = None
    """Most words of a prompt; placeholders do not count. Default: no bound but 1,000."""
    forbid: tuple[PromptText, ...] = ()
    """Words or phrases that no prompt may contain, in capitals or not."""
    language: Literal[LANGUAGE_CODES] | None = None  # type: ignore[valid-type]  # a tuple of literals
    """Language of the prompts, as a code such as ``en`` or ``de``. A prompt is dropped if it is surely in another one;
    of a very short prompt, the language cannot be told. Default: any."""
    allow_copied_examples: bool = False
    """Accept new prompts that copy a ``train`` example: six of its words in a row, or an input of three to five words
    as a whole. Words that more than a fifth of the examples share, and labels, may always be used."""
    position: Position = Position.QUESTION_END
    """Position of the prompt: question_end, question_begin, before_question, answer_begin or system. With template,
    the prompt contains placeholders of the data's columns, such as ``{{ ticket }}``; ``{{ row["Two words"] }}`` is a
    column whose name is not an identifier."""
    question_marks: bool = False
    """Mark the question with "Q:" and the answer with "A:"."""
    shots: NonNegativeInt = 0
    """Solved examples that the task model sees before each question: the first ones of the data's few-shot examples, or
    else some of ``train``, which are then removed from it."""
    program: ProgramConfig | None = None
    """Your own program in place of a single call of the task model: ``module:function``, or a section."""
    prompts: PromptsConfig | None = None
    """The prompts of the program, by name, in place of ``prompt``. They are optimized together: a candidate has one
    or two of them rewritten, in turn, or the one that the reasons of wrong answers name."""
    constraints: dict[PartName, ConstraintsConfig] = Field(default_factory=dict)
    """``must_keep``, ``max_words``, ``forbid`` and ``language`` of single prompts of ``prompts``, by name. Those of the
    task hold for all prompts together."""
    answer: AnswerConfig = AnswerConfig()
    """How answers are asked for and judged."""

    @model_validator(mode="before")
    @classmethod
    def _name_of_benchmark(cls, task: Any) -> Any:
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            return task
        data = task["data"]
        own, benchmark = data.get("name"), data.get("benchmark")
        if benchmark and (own == ALL or isinstance(own, list | tuple)):
            if "name" in task:
                raise unfit(
                    "is one name for several tasks; leave it out, each task is named as in its benchmark", at="name"
                )
            # Until one_each gives each task its own.
            own = benchmark
        if "name" not in task and (own or benchmark):
            # A wrong name is reported for the option in data.
            names = (name for name in (own, benchmark) if isinstance(name, str) and re.fullmatch(TASK_NAME, name))
            return {"name": next(names, "unnamed"), **task}
        return task

    @model_validator(mode="before")
    @classmethod
    def _default_prompt(cls, task: Any) -> Any:
        """Write the default out, since it depends on the goal."""
        if isinstance(task, dict) and task.get("prompt") is task.get("goal") is task.get("prompts") is None:
            return {**task, "prompt": DEFAULT_PROMPT}
        return task

    @model_validator(mode="before")
    @classmethod
    def _prompts_of_program(cls, task: Any, info: ValidationInfo) -> Any:
        """Write the prompts of a DSPy program out, since its file may change."""
        if not isinstance(task, dict) or not isinstance(task.get("program"), dict):
            return task
        is_given = task.get("prompt") is not None or task.get("prompts") is not None
        return task if is_given else {**task, "prompts": own_prompts(task["program"], info.context)}

    @model_validator(mode="after")
    def _program_fits(self) -> Self:
        at = None
        if self.program is None:
            if self.prompts is not None:
                at, problem = "prompts", "needs a program that uses them; set program, or write prompt"
            elif self.position is Position.PROGRAM:
                at, problem = "position", "is that of a program; set program, or choose another position"
        elif self.prompts is not None and self.prompt is not None:
            at, problem = "prompt", "is set as well as prompts; keep one of the two"
        elif self.position not in (Position.QUESTION_END, Position.PROGRAM):
            at, problem = "position", "does not apply to a program, which places its prompts itself; leave it out"
        elif self.program.framework == "gepa" and self.answer != AnswerConfig():
            at, problem = "answer", "does not apply to a gepa adapter, which scores its answers itself; leave it out"
        elif self.question_marks or self.shots or self.answer.rounds == 2:
            at = "question_marks" if self.question_marks else "shots" if self.shots else "answer.rounds"
            problem = "does not apply to a program, which writes its requests itself; leave it out"
        elif unknown := self.constraints.keys() - (self.prompts or {}).keys():
            at, problem = "constraints", f"names {quoted(min(unknown))}, which is not in prompts; name one of them"
        if at is not None:
            raise unfit(problem, at=at)
        return self

    @model_validator(mode="after")
    def _prompt_fits_position(self) -> Self:
        if self.position is Position.TEMPLATE:
            self._require_template()
        elif isinstance(self.prompt, MessagesConfig):
            raise unfit("has two messages, which needs position: template; set it, or write a text", at="prompt")
        return self

    def _require_template(self) -> None:
        if isinstance(self.data, BenchmarkConfig):
            raise unfit(
                "template does not apply to a benchmark, whose columns are not named; choose another position",
                at="position",
            )
        if self.question_marks:
            raise unfit(
                "does not apply to a template; write Q: and A: into the prompt, and leave this out", at="question_marks"
            )
        known = self._known_texts
        problem = initial_problem(known[0]) if known else None  # otherwise checked once they are read
        if problem is not None:
            raise unfit(f"{problem}; correct it, or choose another position than template", at="prompt")

    def build(self, where: str, val_size: PositiveInt | None, test_size: PositiveInt | None) -> Task:
        """Load and check the task.

        Args:
            where: this section's path, for errors. They also name the task, since the index of a task differs from the
                user's file after an entry that expands to several tasks.
            val_size: at most this many examples of ``val``.
            test_size: at most this many examples of ``test``.

        Raises:
            ConfigError: the data cannot be used.
        """
        try:
            return self._built(where, val_size, test_size)
        except ConfigError as error:
            raise ConfigError(error.field, f"task {self.name}: {error.problem}", error.remedy) from None

    def _built(self, where: str, val_size: PositiveInt | None, test_size: PositiveInt | None) -> Task:
        initial, *given = self._prompts(f"{where}.prompt")
        splits, demonstrations = self._load(where, initial).with_shots(self.shots, where=where)
        examples = [example for split in (*splits.values(), demonstrations) for example in split]
        is_filled = self.position is Position.TEMPLATE or self.program is not None
        if not is_filled and (unfilled := placeholders(initial.text)):
            log.warning("%s.prompt contains %s, which only position: template fills in", where, unfilled[0])
        is_benchmark = isinstance(self.data, BenchmarkConfig)
        known = self.data.known if isinstance(self.data, BenchmarkConfig) else None
        program = self._built_program(f"{where}.program")  # before a metric, which may be in the same module
        task = Task(
            name=self.name,
            initial=initial,
            given=tuple(given),
            starts_from_goal=self.prompt is None and self.prompts is None,
            examples={
                Split.TRAIN: splits[Split.TRAIN],
                Split.VAL: sampled(splits[Split.VAL], val_size),
                Split.TEST: sampled(splits[Split.TEST], test_size),
            },
            scorer=self.answer.scorer(examples, f"{where}.answer", known),
            answer_format=AnswerFormat(
                self.position if self.program is None else Position.PROGRAM,
                self.answer.rounds or (2 if is_benchmark and self.program is None else 1),
                self.question_marks,
                demonstrations,
            ),
            program=program,
            group=known.group if known else "",
            counts_as=known.counts_as if known else "",
            goal=self.goal,
            constraints=self._constraints,
            guards_examples=not self.allow_copied_examples,
        )
        for name, own in task.constraints.of_parts.items():
            if self.prompts is not None and (broken := own.broken(Prompt(self.prompts[name]))):
                constraint, problem = broken
                where = f"{where}.constraints.{name}"
                raise ConfigError(f"{where}.{constraint}", f"the initial prompt {problem}", "change one of the two")
        if broken := task.constraints.broken(initial):
            constraint, problem = broken
            what, remedy = "the initial prompt", "change one of the two"
            if self.prompt is None:
                what, remedy = "the goal, which is the initial prompt,", "write a prompt that keeps it"
            raise ConfigError(f"{where}.{constraint}", f"{what} {problem}", remedy)
        usable = []
        for number, prompt in enumerate(given, start=2):
            broken = task.constraints.broken(prompt)
            reason = task.prompt_problem(prompt) or (broken[1] if broken else None)
            if reason is None:
                usable.append(prompt)
            elif isinstance(self.prompt, PromptRunConfig):
                log.warning("%s.prompt: a prompt of the earlier run %s, and is left out", where, reason)
            else:
                raise ConfigError(f"{where}.prompt", f"prompt {number} {reason}", "correct it, or remove it")
        return replace(task, given=tuple(usable))

    @property
    def _constraints(self) -> Constraints:
        of_parts = {name: section.build() for name, section in self.constraints.items()}
        all_of_them = Constraints(self.must_keep, self.max_words, self.forbid, self.language, of_parts)
        # A single prompt has no heading, by which its part would be found.
        return all_of_them.of(*self.prompts) if self.prompts is not None and len(self.prompts) == 1 else all_of_them

    def _built_program(self, where: str) -> ProgramSpec | None:
        if self.program is None:
            return None
        names = tuple(self.prompts) if self.prompts else ("prompt",)
        return self.program.build(where, names, (self.fields or FieldsConfig()).target_columns)

    def _prompts(self, where: str) -> tuple[Prompt, ...]:
        """The distinct prompts, the initial one first."""
        texts = self.prompt.read(where) if isinstance(self.prompt, PromptFileConfig) else self._known_texts
        if texts is None:
            raise TypeError("the prompts of the run are not known yet: read them first")
        if self.position is Position.TEMPLATE and (problem := initial_problem(texts[0])):
            raise ConfigError(
                where, f"the first prompt {problem}", "correct it, or choose another position than template"
            )
        return tuple(map(Prompt, texts))

    @property
    def _known_texts(self) -> tuple[str, ...] | None:
        """The prompts, the initial one first; ``None`` if they have to be read."""
        if self.prompts is not None:
            only, *more = self.prompts.values()
            return (joined_parts(self.prompts) if more else only,)
        return (self.goal or DEFAULT_PROMPT,) if self.prompt is None else known_texts(self.prompt)

    def with_prompts(self, texts: Sequence[str]) -> TaskConfig:
        """The section with what was found in the file or run that ``prompt`` names, the initial prompt first."""
        if not isinstance(self.prompt, PromptFileConfig | PromptRunConfig):
            return self
        return self.model_copy(update={"prompt": self.prompt.model_copy(update={"prompts": tuple(texts)})})

    def _load(self, where: str, initial: Prompt) -> LoadedTask:
        if isinstance(self.data, BenchmarkConfig):
            if self.fields is not None:
                raise ConfigError(
                    f"{where}.fields", "does not apply to a benchmark, whose columns are known", "remove it"
                )
            return self.data.load(f"{where}.data")
        is_template = self.position is Position.TEMPLATE
        names = dict.fromkeys(placeholders(initial.text) if is_template else ())
        filled_in = tuple(Template(name, f"{where}.prompt") for name in names)
        fields = (self.fields or FieldsConfig()).build(
            f"{where}.fields",
            filled_in,
            keeps_rows=self.answer.metric is not None or self.program is not None,
            is_program=self.program is not None,
        )
        return self.data.load(fields, f"{where}.data")


def one_each(tasks: tuple[TaskConfig, ...]) -> tuple[TaskConfig, ...]:
    """The tasks, with an entry for several tasks of a benchmark replaced by one entry per task."""
    return tuple(one for task in tasks for one in _one_each(task))


def _one_each(task: TaskConfig) -> tuple[TaskConfig, ...]:
    entries = task.data.entries if isinstance(task.data, BenchmarkConfig) else ()
    if entries in ((), (task.data,)):
        return (task,)
    return tuple(task.model_copy(update={"name": entry.name, "data": entry}) for entry in entries)


# Checked before entries are split up, so that errors show the indices of the user's file.
Tasks = Annotated[tuple[TaskConfig, ...], Field(min_length=1), AfterValidator(one_each)]
"""The section as a whole."""
