"""Options ``tasks[].program`` and ``tasks[].prompts``: a program of the user's own in place of a single call."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from cluster.config.functions import FunctionName, FunctionSection, quoted, reference, require_loadable
from cluster.config.prompts import PromptText
from cluster.config.section import LOCATION, ConfigPath, unfit
from gpo.errors import EvaluationError
from gpo.evaluation.dspy_program import DSPyProgram
from gpo.evaluation.gepa_program import GEPAProgram
from gpo.evaluation.program import ProgramSpec
from gpo.prompt import joined_parts, parts_of
from gpo.user_code.functions import FunctionReference


class ProgramSection(FunctionSection):
    """A program of your own, which answers examples with as many model calls as it needs."""

    function: FunctionName
    """The function ``module:function``, async or not. It gets a dictionary of the prompts, a dictionary of the
    example's columns without the target, and an ``openai`` client; it returns the answer as a text or a
    ``gpo.Answer``. The client's calls are limited, cached, counted and repeated like all others; ``model="task"`` is
    the task model. On a cluster, every node must have the module."""
    framework: Literal["dspy", "gepa"] | None = None
    """``dspy``: the function is the object of a DSPy program instead, the instructions of whose predictors are the
    prompts. ``program: {dspy: module:object}`` is short for this, with the gateway. ``gepa``: it is an object with the
    methods of ``gepa.GEPAAdapter`` instead, which scores its answers itself, from 0 to 1. ``program: {gepa:
    module:object}`` is short for this, with the gateway and in processes, since an adapter need not be thread-safe."""
    folder: Annotated[ConfigPath | None, LOCATION] = None
    """Folder with the module. The working directory is searched next, then the installed packages. Default: this file's
    folder."""
    max_seconds: PositiveFloat = 120.0
    """Most seconds for one example, without the time in which models are called. An example that takes longer stays
    unscored."""
    max_calls: PositiveInt = 100
    """Most model calls for one example, cached ones included. A program that makes more scores 0 on the example."""
    workers: Literal["thread", "process"] = "thread"
    """Where the program runs. With ``thread``, async functions share an event loop, and others run in threads. With
    ``process``, it runs in processes of its own, one example at a time in each: for code that blocks, leaks memory or
    crashes. A process is killed where ``max_seconds`` is over."""
    processes: PositiveInt = 8
    """Number of these processes in each replica of the evaluator."""
    max_memory_mb: PositiveInt | None = None
    """Most memory of each of these processes, in MB. An example that needs more, even in a new process, stays unscored.
    Default: no bound."""
    gateway: bool = False
    """Offer the models over HTTP, too, for frameworks that have clients of their own. The program finds the address and
    its key in OPENAI_BASE_URL and OPENAI_API_KEY, before its module is imported."""

    @model_validator(mode="after")
    def _options_fit_workers(self) -> Self:
        if self.workers == "process" and self.function.startswith("__main__:"):
            raise unfit(
                "is known only in this process; write it into a module, or leave program.workers out", at="function"
            )
        if self.workers == "thread" and self.max_memory_mb is not None:
            raise unfit("bounds processes; set workers: process, or leave it out", at="max_memory_mb")
        return self

    @property
    def reference(self) -> FunctionReference:
        """Where the function is."""
        found = reference(self.function, self.folder)
        kinds = {"dspy": DSPyProgram, "gepa": GEPAProgram, None: FunctionReference}
        return kinds[self.framework](found.module, found.name, found.folders)

    def variables(self) -> AbstractContextManager[None]:
        """The environment in which the module is imported. Nothing is sent to the gateway before the program runs."""
        if not self.gateway:
            return nullcontext()
        from gpo.evaluation.gateway import process_gateway
        from gpo.user_code.environment import replaced

        return replaced(process_gateway().variables)

    def build(self, where: str, names: tuple[str, ...], hidden: tuple[str, ...]) -> ProgramSpec:
        """The program.

        Args:
            where: this section's path, for errors.
            names: of its prompts.
            hidden: columns with the right answer, which only a program that scores itself sees.

        Raises:
            ConfigError: the function cannot be imported.
        """
        function = self.reference
        with self.variables():
            require_loadable(function, f"{where}.function")
        return ProgramSpec(
            function,
            names,
            self.max_seconds,
            () if self.framework == "gepa" else hidden,
            self.gateway,
            self.max_calls,
            self.processes if self.workers == "process" else 0,
            self.max_memory_mb,
        )


_FRAMEWORKS: dict[str, dict[str, Any]] = {
    "dspy": {"gateway": True},
    "gepa": {"gateway": True, "workers": "process"},
}


def _short_forms(value: Any) -> Any:
    """``program: module:function`` stands for ``program: {function: module:function}``."""
    for framework, defaults in _FRAMEWORKS.items():
        if isinstance(value, dict) and framework in value and "function" not in value:
            others = {name: option for name, option in value.items() if name != framework}
            return {**defaults, "framework": framework, "function": value[framework], **others}
    return {"function": value} if isinstance(value, str) else value


ProgramConfig = Annotated[ProgramSection, BeforeValidator(_short_forms)]


def _can_be_joined(prompts: dict[str, str]) -> dict[str, str]:
    if parts_of(joined_parts(prompts)) != prompts:
        raise unfit("holds a text with a line such as [[name]], which divides prompts; change that line")
    return prompts


_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,39}$"


def _name_of_part(name: str) -> str:
    if not re.match(_NAME, name):
        problem = "is not a name; use at most 40 letters, digits and _, and begin with a letter or _"
        raise unfit(f"{quoted(name)} {problem}")
    return name


PartName = Annotated[str, AfterValidator(_name_of_part), Field(json_schema_extra={"pattern": _NAME})]
PromptsConfig = Annotated[dict[PartName, PromptText], Field(min_length=1), AfterValidator(_can_be_joined)]
"""Name → text of the prompts of a program, in the order in which it uses them."""


_SECTION: TypeAdapter[ProgramSection] = TypeAdapter(ProgramConfig)


def own_prompts(program: Any, context: Any) -> dict[str, str] | None:
    """The prompts that a program brings along; ``None`` if its section is invalid or of another kind.

    Args:
        program: the section as it was read.
        context: of the validation.

    Raises:
        PydanticCustomError: the program cannot be loaded.
    """
    try:
        section = _SECTION.validate_python(program, context=context)
    except ValidationError:
        return None  # reported where the section is checked
    if section.framework != "dspy":
        return None
    try:
        with section.variables():
            loaded: Any = section.reference.load()
            return dict(loaded.prompts)
    except EvaluationError as failure:
        raise unfit(str(failure), at="program") from None
