"""Functions of a user in the configuration: their names, and the folders in which their modules are searched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.config.section import AllowedPaths, LocatedText, Section, unfit
from gpo.errors import ConfigError, EvaluationError
from gpo.user_code.functions import FunctionReference
from gpo.user_code.modules import home_of

FUNCTION = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""A pattern of ``module:function``."""


def quoted(text: str) -> str:
    """A text of the user in an error, abridged."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def refuse_file(name: str) -> None:
    """Refuse the path of a file, with what to write instead."""
    if name.partition(":")[0].endswith(".py"):
        raise unfit(f"{quoted(name)} is a file; write module:function without .py, and the file's folder as folder")


def _function(name: str, info: ValidationInfo) -> str:
    refuse_file(name)
    if not re.fullmatch(FUNCTION, name):
        raise unfit(f"{quoted(name)} is not a function; write it as module:function")
    require_allowed(name, info)
    return name


def require_allowed(function: str, info: ValidationInfo) -> None:
    """Refuse a function outside the modules that a configuration may name."""
    if (allowed := AllowedPaths.of(info)) is not None:
        allowed.require_module(function.partition(":")[0], function)


FunctionName = Annotated[str, AfterValidator(_function), Field(json_schema_extra={"pattern": rf"^{FUNCTION}$"})]
"""``module:function``."""


def folder_beside(function: object) -> str | None:
    """The folder of the file that names the function, as the default of an option ``folder``.

    It is stored explicitly, because the run folder's copy of the configuration is in another folder. A function that a
    program passes as an object is in no folder.
    """
    if str(function).startswith("__main__:"):
        return None
    return LocatedText(".", function.folder) if isinstance(function, LocatedText) else "."


def folder_of(function: str, folder: Path) -> Path:
    """The folder in which the function's module is found, so that a run can be resumed from anywhere.

    It is ``folder`` itself if the module is in neither of the folders that are searched.
    """
    found = home_of(function.partition(":")[0], _searched(folder))
    return folder if found is None else Path(found)


class FunctionSection(Section):
    """A section that names a function, and in the option ``folder`` the folder with its module."""

    named_by: ClassVar[str] = "function"
    """The option with the name of the function."""

    @model_validator(mode="before")
    @classmethod
    def _folder_beside_the_file(cls, section: Any) -> Any:
        if isinstance(section, dict) and section.get("folder") is None:
            return {**section, "folder": folder_beside(section.get(cls.named_by))}
        return section

    @field_validator("folder", check_fields=False)
    @classmethod
    def _folder_where_it_is(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        name = info.data.get(cls.named_by)
        return folder if folder is None or name is None else folder_of(name, folder)


def reference(function: str, folder: Path | None) -> FunctionReference:
    """The function, which is searched in ``folder`` and then in the working directory."""
    module, _, name = function.partition(":")
    return FunctionReference(module, name, _searched(folder or Path.cwd()))


def _searched(folder: Path) -> tuple[str, ...]:
    """The folders that are searched for modules before Python's own, in order."""
    return tuple(dict.fromkeys((str(folder), str(Path.cwd()))))


def require_loadable(function: FunctionReference, field: str) -> None:
    """Import the function.

    Args:
        field: the option that names the function; an option ``folder`` is beside it.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        function.load()
    except EvaluationError as failure:
        section, folder = field.rpartition(".")[0], Path(function.folders[0])
        if not folder.is_dir():
            lack = "is not a folder" if folder.exists() else "does not exist"
            raise ConfigError(
                f"{section}.folder", f"{str(folder)!r} {lack}, and {failure}", "name the folder that holds the module"
            ) from None
        raise ConfigError(
            field,
            str(failure),
            "name a function of a module that is installed, or that is in the option folder or the working directory",
        ) from None
