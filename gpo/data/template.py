"""A text made of several columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gpo.errors import ConfigError

ROW = "row"
"""The variable that holds the whole row."""


@dataclass(frozen=True, slots=True)
class Template:
    """A Jinja template; the columns of a row are its variables, and ``row`` holds them all, whatever their names.

    A column that is itself called ``row`` is therefore ``row.row``. The template is rendered in a sandbox, as plain
    text: nothing is escaped. Of Jinja's filters all but ``random`` are there, of its functions none, so that a row
    always gives the same text. A column that is missing or null is an error.

    Attributes:
        source: its text.
        field: the setting that holds it, for errors: ``fields.template``.
    """

    source: str
    field: str

    def check(self) -> None:
        """Compile it.

        Raises:
            ConfigError: its syntax is wrong, or it is too much for the compiler.
        """
        try:
            _compiled(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                self.field, f"is not a valid template (line {error.lineno}: {error.message})", "correct that line"
            ) from None
        # Jinja writes a program of Python, which may be too deep or break Python's rules.
        except (jinja2.TemplateError, ArithmeticError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
            raise ConfigError(
                self.field,
                f"is not a valid template ({type(error).__name__}: {reason[:200] or 'too large'})",
                "write it more simply",
            ) from None

    @property
    def variables(self) -> frozenset[str]:
        """The names that it takes from a row: columns, and ``row``.

        Raises:
            ConfigError: its syntax is wrong.
        """
        self.check()
        return frozenset(jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source)))

    def rendered(self, row: Mapping[str, Any], where: str) -> str:
        """The text for a row.

        Args:
            where: the row's place, for errors.

        Raises:
            ConfigError: its syntax is wrong, a column that it names is missing or null, or there is no text.
        """
        self.check()
        try:
            text = _compiled(self.source).render({**row, ROW: row})
        # Whatever a template does wrong comes as an exception of Python's own: a sum of texts, an index too large.
        except Exception as error:
            columns = ", ".join(str(name) for name in row)
            raise ConfigError(
                where,
                f"the template cannot be filled in ({error}); the columns are: {columns}",
                f"correct {self.field}, or the row",
            ) from None
        if not text.strip():
            raise ConfigError(where, "the template leaves nothing but white space", f"correct {self.field}, or the row")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(where, "a column holds half a character (a lone surrogate)", "write it out in full")
        return text


def _printed(value: Any) -> Any:
    if value is None:
        raise jinja2.UndefinedError("a column that it shows is null")
    if isinstance(value, jinja2.Undefined):
        return value  # says which
    if callable(value):
        raise jinja2.UndefinedError("it shows a function in place of what the function gives; write () after its name")
    if isinstance(value, Iterator):
        raise jinja2.UndefinedError("it shows an unfinished list; end it with | list or | join")
    return value


# The text goes to a language model, not into HTML.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    autoescape=False,
    finalize=_printed,
)
_ENVIRONMENT.globals.clear()
del _ENVIRONMENT.filters["random"]


@cache
def _compiled(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)
