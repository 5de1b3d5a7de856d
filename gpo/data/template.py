"""Templates that make a text from several columns of a row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gpo.errors import ConfigError

ROW = "row"
"""The variable that contains the whole row."""


@dataclass(frozen=True, slots=True)
class Template:
    """A Jinja template. Its variables are the columns of a row, and ``row`` for the whole row.

    A column named ``row`` is therefore ``row.row``. The template is rendered in a sandbox as plain text, without
    escaping. It has all of Jinja's filters except ``random`` and none of its functions, so that equal rows give equal
    texts. A missing, null or NaN column is an error.

    Attributes:
        source: text of the template.
        field: the setting with the template, for errors, such as ``fields.template``.
    """

    source: str
    field: str

    def check(self) -> None:
        """Compile the template.

        Raises:
            ConfigError: the syntax is invalid, or the template is too large for the compiler.
        """
        try:
            _compiled(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                self.field, f"is not a valid template (line {error.lineno}: {error.message})", "correct that line"
            ) from None
        # Jinja compiles to Python code, which may be nested too deeply or be invalid.
        except (jinja2.TemplateError, ArithmeticError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
            raise ConfigError(
                self.field,
                f"is not a valid template ({type(error).__name__}: {reason[:200] or 'too large'})",
                "write it more simply",
            ) from None

    @property
    def variables(self) -> frozenset[str]:
        """The names that the template uses: columns, and ``row``.

        Raises:
            ConfigError: the syntax is invalid.
        """
        self.check()
        return frozenset(jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source)))

    def rendered(self, row: Mapping[str, Any], where: str) -> str:
        """Render the template for a row.

        Args:
            where: location of the row, for errors.

        Raises:
            ConfigError: the syntax is invalid, a column is missing or null, or the text is empty.
        """
        text = self.filled(row, where)
        if not text.strip():
            raise ConfigError(where, "the template gives only white space", f"correct {self.field}, or the row")
        return text

    def filled(self, row: Mapping[str, Any], where: str) -> str:
        """Render the template for a row; the text may be empty.

        Args:
            where: location of the row, for errors.

        Raises:
            ConfigError: the syntax is invalid, or a column is missing or null.
        """
        self.check()
        try:
            text = _compiled(self.source).render({**row, ROW: row})
        # Errors in a template raise any Python exception, such as a TypeError or IndexError.
        except Exception as error:
            columns = ", ".join(str(name) for name in row)
            raise ConfigError(
                where,
                f"the template cannot be filled in ({error}); the columns are: {columns}",
                f"correct {self.field}, or the row",
            ) from None
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(where, "a column contains a lone surrogate", "write the whole character")
        return text


def _printed(value: Any) -> Any:
    if value is None:
        raise jinja2.UndefinedError("a column in it is null")
    if isinstance(value, float) and not math.isfinite(value):
        raise jinja2.UndefinedError("a column in it is NaN or infinite")
    if isinstance(value, jinja2.Undefined):
        return value  # its own error names the column
    if callable(value):
        raise jinja2.UndefinedError("it contains a function instead of its result; write () after the name")
    if isinstance(value, Iterator):
        raise jinja2.UndefinedError("it contains a generator; end it with | list or | join")
    return value


# No escaping, since the text goes to a language model, not into HTML.
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
