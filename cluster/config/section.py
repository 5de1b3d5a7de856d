"""What all sections of the configuration have in common: closed to unknown options, and facts about each option."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from typing_extensions import TypeAliasType

from gpo.errors import ConfigError
from gpo.user_code.modules import files_of


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """Facts about an option that other parts of the program act on, as metadata of its field.

    They hold for everything below a section, too.

    Attributes:
        may_change: an attempt that resumes a run, or joins a sweep, may have another value: the option decides where
            or how fast the work is done, where something lies that is compared by its content, or when the work
            ends, but not the scores.
        tunable: the trials of a sweep may differ in it.
        tracked: MLflow records it as a parameter of the run, since it decides how well a search does.
        is_output: the path of a file that a run writes.
        sensitive: the kind of secret that the value may disclose. ``value``: it may hold a key or password.
            ``variable``: it names an environment variable that holds a key. ``url_variable``: it names an environment
            variable that holds an address with a password. ``file``: it names a file that holds a key.
        in_comparison: ``shared`` by all methods of a comparison, or part of each ``method``.
        posted: for a run that is started over HTTP. ``service``: it has the value of the service's own configuration.
            ``refused``: likewise, and the request may not name any value.
    """

    may_change: bool = False
    tunable: bool = False
    tracked: bool = False
    is_output: bool = False
    sensitive: Literal["value", "variable", "url_variable", "file"] | None = None
    in_comparison: Literal["shared", "method"] | None = None
    posted: Literal["service", "refused"] | None = None

    @classmethod
    def of(cls, field: FieldInfo) -> OptionInfo:
        """The facts about a field; all false where none are stated."""
        return next((fact for fact in field.metadata if isinstance(fact, OptionInfo)), _PLAIN)

    def below(self, inner: OptionInfo) -> OptionInfo:
        """The facts about an option of this section."""
        return OptionInfo(*(own or above for own, above in zip(astuple(inner), astuple(self), strict=True)))


_PLAIN = OptionInfo()
LOCATION = OptionInfo(may_change=True)
"""Of a path: a run compares what is there, by its fingerprint, since each pod and each job may have it elsewhere."""


def unfit(message: str, at: str = "") -> PydanticCustomError:
    """The error of a validator: what is wrong, and after a semicolon the remedy.

    Args:
        at: the option of the section that it is about; by default, the one that is validated.
    """
    return PydanticCustomError("unfit", "{message}", {"at": at, "message": message})


class Section(BaseModel):
    """A part of the configuration: immutable, closed to unknown options, documented field by field."""

    # ``use_attribute_docstrings`` would parse this package's source in each command, which takes half a second.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The options' docstrings are their descriptions in the JSON schema."""
        document = handler(schema)
        described = handler.resolve_ref_schema(document)["properties"]
        for option, text in option_docs(cls).items():
            described[option].setdefault("description", text)
        return document

    @model_validator(mode="before")
    @classmethod
    def _known_options(cls, data: Any) -> Any:
        """Suggest the option that was meant. The value is not shown, since it may be a misplaced secret."""
        if isinstance(data, dict):
            known = list(cls.model_fields)
            for option in data:
                if option not in known:
                    near = get_close_matches(str(option), known, n=1)
                    remedy = f"did you mean {near[0]!r}?" if near else f"choose among: {', '.join(known)}"
                    raise unfit(f"is not an option; {remedy}", at=str(option))
        return data


def option_docs(section: type[BaseModel]) -> dict[str, str]:
    """Option → the docstring below it, in the source of the class or of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (definition,) = ast.parse(dedent(inspect.getsource(base))).body
        for option, below in pairwise(cast("ast.ClassDef", definition).body):
            match option, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = inspect.cleandoc(text)
    return {name: docs[name] for name in section.model_fields if name in docs}


# -- options of a configuration, and the facts about them -------------------------------------------------------------


def options(value: object, path: str = "", above: OptionInfo = _PLAIN) -> Iterator[tuple[str, OptionInfo, Any]]:
    """Every option of a loaded section, at any depth: its path such as ``tasks.0.prompt``, its facts and its value."""
    if isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            yield from options(
                getattr(value, name), f"{path}.{name}".removeprefix("."), above.below(OptionInfo.of(field))
            )
    elif isinstance(value, tuple) and any(isinstance(entry, Section) for entry in value):
        for index, entry in enumerate(value):
            yield from options(entry, f"{path}.{index}", above)
    elif isinstance(value, dict) and any(isinstance(entry, Section) for entry in value.values()):
        for name, entry in value.items():
            yield from options(entry, f"{path}.{name}", above)
    else:
        yield path, above, value


def declared(kind: type[Section], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field that a section of this kind can have, at any depth, with its path; list entries have no index."""
    for name, field in kind.model_fields.items():
        here = f"{path}.{name}".removeprefix(".")
        yield here, field
        for below in sections_in(field.annotation):
            yield from declared(below, here)


def sections_in(annotation: Any) -> list[type[Section]]:
    """The kinds of section that a type allows, each once; without a ``kind``, a section is of the first one."""
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    if parts := get_args(annotation):
        return list(dict.fromkeys(section for part in parts for section in sections_in(part)))
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []


def lasting(section: Section) -> dict[str, Any]:
    """The section as JSON values, without the options that may change when a run is resumed.

    Of a path that remains, only the last part does: another pod or machine has the same file elsewhere.
    """

    def without(value: object, dumped: Any) -> Any:
        if isinstance(value, Section):
            fields = type(value).model_fields.items()
            kept = [name for name, field in fields if not OptionInfo.of(field).may_change]
            return {name: without(getattr(value, name), dumped[name]) for name in kept}
        if isinstance(value, tuple):
            return [without(entry, below) for entry, below in zip(value, dumped, strict=True)]
        return value.name if isinstance(value, Path) else dumped

    return cast("dict[str, Any]", without(section, section.model_dump(mode="json")))


def first_difference(before: Any, after: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The path of the first option in which two sections as JSON values differ, and both its values."""
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [
            (f"{path}.{name}".removeprefix("."), before.get(name), after.get(name)) for name in {**before, **after}
        ]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(f"{path}[{index}]", *both) for index, both in enumerate(zip(before, after, strict=True))]
    else:
        return None if before == after else (path, before, after)
    return next(filter(None, (first_difference(old, new, here) for here, old, new in pairs)), None)


# -- types of options -------------------------------------------------------------------------------------------------


class LocatedText(str):
    """A text in a configuration file that remembers the file's folder, where relative paths start."""

    __slots__ = ("folder",)

    def __new__(cls, text: str, folder: Path) -> LocatedText:
        """The text, from a file in this folder."""
        located = super().__new__(cls, text)
        located.folder = folder
        return located

    folder: Path

    def __reduce__(self) -> tuple[type[LocatedText], tuple[str, Path]]:
        """Pickle and copy the folder, too."""
        return LocatedText, (str(self), self.folder)


@dataclass(frozen=True, slots=True)
class AllowedPaths:
    """Where a configuration from outside may name files.

    As ``allowed`` in the context of a validation, it is checked before any file is opened or any module imported.

    Attributes:
        shared: the folder with files and modules that anyone may name, absolute and without links; ``None`` is none.
        own: further files, likewise: the run's own.
    """

    shared: Path | None
    own: frozenset[Path]

    @classmethod
    def of(cls, info: ValidationInfo) -> AllowedPaths | None:
        """Those of a validation; ``None`` if every path is allowed."""
        return (info.context or {}).get("allowed")

    def require(self, path: Path, shown: object) -> None:
        """Refuse a path outside; links in it are resolved already."""
        if path not in self.own and (self.shared is None or not path.is_relative_to(self.shared)):
            raise self._refusal(shown)

    def require_module(self, module: str, shown: object) -> None:
        """Refuse a module that is not in the shared folder, or whose files are links to files outside."""
        files = [] if self.shared is None else files_of(module, str(self.shared))
        # A module of this library would be imported from where it is installed.
        if module.partition(".")[0] == "gpo" or not files:
            raise self._refusal(shown)
        for file in files:
            if self.shared is None or not Path(file).resolve().is_relative_to(self.shared):
                raise self._refusal(shown)

    def _refusal(self, shown: object) -> PydanticCustomError:
        lack = "is not in the folder that the service allows"
        if self.shared is None:
            lack = "is a file, folder or function, and the service allows none"
        return unfit(f"{str(shown)!r} {lack}; send examples as rows, or ask for gpo serve --allow-dir")


def absolute(value: Any, info: ValidationInfo) -> Any:
    """A path as an absolute one; relative paths start at the folder of the file that names them.

    Links are kept, because a path through a link outlives what the link leads to: Kubernetes, for example, replaces the
    folder behind a mounted ConfigMap. Only where paths are restricted, the links are resolved.
    """
    if not isinstance(value, str | Path):
        return value  # pydantic refuses it
    base = value.folder if isinstance(value, LocatedText) else (info.context or {}).get("base_dir", Path.cwd())
    allowed = AllowedPaths.of(info)
    try:
        path = absolute_path(base / Path(value).expanduser())
        if allowed is not None:
            path = path.resolve()
    except (RuntimeError, ValueError) as error:  # an unknown user's home, or a NUL
        raise unfit(f"{str(value)!r} is not a path ({error}); name another") from None
    if allowed is not None:
        allowed.require(path, value)
    return path


def absolute_path(path: Path) -> Path:
    """The path without ``..``, absolute. Links are kept, except for those before a ``..``.

    Raises:
        RuntimeError: those links form a circle.
        ValueError: it cannot be a path.
    """
    path = path.absolute()
    if "\0" in str(path):
        raise ValueError("it contains a NUL")
    parts = path.parts
    if ".." not in parts:
        return path
    end = len(parts) - parts[::-1].index("..")
    return Path(*parts[:end]).resolve().joinpath(*parts[end:])


def path_within(root: Path, path: Path) -> Path | None:
    """The path as one below a folder: as it is, or else with its links resolved; ``None`` if it is outside.

    Args:
        root: absolute, without links.
    """
    return next((form for form in (absolute_path(path), path.resolve()) if form.is_relative_to(root)), None)


def require_redis_url(variable: str, option: str) -> None:
    """Check that an environment variable has the address of a Redis server.

    Raises:
        ConfigError: it is not set.
    """
    if not os.environ.get(variable, "").strip():
        raise ConfigError(
            option,
            f"environment variable {variable} is not set",
            f"export {variable}=redis://… (on a cluster, for every node's processes)",
        )


ConfigPath = Annotated[Path, BeforeValidator(absolute)]
"""A path, relative to the folder of the configuration file that names it; absolute once loaded."""


def _variable_name(name: str) -> str:
    # Capitals only, so that a key or an address with a password is refused, and not shown.
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise unfit("is not the name of an environment variable in capitals; write its name, not its value")
    return name


VariableName = Annotated[str, AfterValidator(_variable_name)]
"""The name of an environment variable."""


def option_of(value: Any, kinds: Iterable[tuple[str, type[Section]]]) -> str | None:
    """The first option that tells which section a value is; ``None`` if it is none of them.

    Args:
        kinds: an option that a section has, and the section.
    """
    for option, section in kinds:
        if option in value if isinstance(value, dict) else isinstance(value, section):
            return option
    return None


OWN = "module:function"
"""The tag of a section whose ``kind`` is a function of the user."""


def by_kind(default: str, *others: str) -> Discriminator:
    """Chooses among sections by their ``kind``; a section without one has the default kind."""

    def kind_of(value: Any) -> str:
        if isinstance(value, dict):
            kind = str(cast("dict[str, Any]", value).get("kind", default))
        else:
            kind = str(getattr(value, "kind", default))
        return OWN if ":" in kind and OWN in others else kind

    return Discriminator(
        kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="is unknown; choose one of: {kinds}",
        custom_error_context={"at": "kind", "kinds": ", ".join((default, *others))},
    )
