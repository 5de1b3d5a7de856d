"""Scoring by functions of the user's own: a metric, or a parser before one of the known scorers.

A function is named, ``module:function``, and imported where it is called: in the command, and in each process that
scores. On a cluster the module must therefore be found on every node, where it is installed or at the same path. The
functions are called in the scoring process's event loop: one that takes long holds up every other answer.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsFloat

from gpo.data.example import Example
from gpo.errors import EvaluationError
from gpo.evaluation.metrics.scorer import Scorer
from gpo.evaluation.metrics.user_modules import own_module
from gpo.text import without_controls

_SHOWN = 300
"""Characters of an error or a value of the user's function that are repeated."""
_ROUNDING = 1e-6
"""How far a metric may leave [0, 1]: a mean of floats ends beside 1 at times."""


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """A function of the user's own, by name; it pickles, whatever the function is.

    Attributes:
        module: dotted name, looked for in the folders, in their order, and then on Python's search path.
        name: of the function in it.
        folders: absolute; the modules in them are not on Python's search path (see ``own_modules``).
    """

    module: str
    name: str
    folders: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    def load(self) -> Callable[..., Any]:
        """The function.

        Raises:
            EvaluationError: there is no such module or function, or the module fails when it is imported.
        """
        try:
            module = own_module(self.module, self.folders)
        except (Exception, SystemExit) as error:  # the module is the user's: anything may happen in it
            if isinstance(error, ModuleNotFoundError) and self._is_own(error):
                places = [*(repr(folder) for folder in self.folders), "where Python looks"]
                raise EvaluationError(f"there is no module {self.module!r} in {' or '.join(places)}") from None
            raise EvaluationError(f"the module {self.module!r} cannot be imported: {_shown(error)}") from None
        function = getattr(module, self.name, None)
        if not callable(function):
            place = getattr(module, "__file__", None) or "built in"
            lack = "is not a function" if hasattr(module, self.name) else "is not there"
            raise EvaluationError(f"{self.name!r} {lack} in the module {self.module!r} ({place})")
        return function  # type: ignore[no-any-return]

    def call(self, *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            EvaluationError: it cannot be loaded, is async, or raises; says where and what.
        """
        function = self.load()
        try:
            value = function(*arguments)
        except (Exception, SystemExit) as error:
            # Where not even its first line was reached, the arguments do not fit.
            inside = error.__traceback__ is None or error.__traceback__.tb_next is not None
            shown = _shown(error, None if inside else function)
            raise EvaluationError(f"the function {self} failed: {shown}") from None
        if inspect.iscoroutine(value):
            value.close()
            raise EvaluationError(f"the function {self} is async; write a plain function")
        return value

    def _is_own(self, missing: ModuleNotFoundError) -> bool:
        """Whether it is this module that is missing, and not one that it needs."""
        return f"{self.module}.".startswith(f"{missing.name}.")


@dataclass(frozen=True, slots=True)
class CustomScorer:
    """A metric of the user's own: ``function(answer, targets, input)`` gives a number in [0, 1] or a truth value."""

    metric: FunctionReference

    def score(self, answer: str, example: Example) -> float:
        """The metric's value.

        Raises:
            EvaluationError: the function fails, or gives anything else; an answer is never 0 for that.
        """
        value = self.metric.call(answer, example.targets, example.input)
        try:
            number = float(value) if isinstance(value, SupportsFloat) else None
        except (TypeError, ValueError, OverflowError):  # an array, say
            number = None
        if number is None or not -_ROUNDING <= number <= 1 + _ROUNDING:
            raise EvaluationError(f"the function {self.metric} gave {_quoted(value)}, not a number from 0 to 1")
        return min(max(number, 0.0), 1.0)

    def follow_up(self, example: Example) -> str:
        """Asks for the bare answer."""
        return "Now give only the final answer and nothing else."


@dataclass(frozen=True, slots=True)
class ParsedScorer:
    """A parser of the user's own before a scorer: ``function(answer, input)`` gives what the scorer shall judge."""

    parser: FunctionReference
    scorer: Scorer

    def score(self, answer: str, example: Example) -> float:
        """The scorer's verdict on what was parsed out of the answer.

        Raises:
            EvaluationError: the function fails, or gives no text.
        """
        parsed = self.parser.call(answer, example.input)
        if not isinstance(parsed, str):
            raise EvaluationError(f"the function {self.parser} gave {_quoted(parsed)}, not a text")
        return self.scorer.score(parsed, example)

    def follow_up(self, example: Example) -> str | None:
        """Asks as the scorer does."""
        return self.scorer.follow_up(example)


def _shown(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """Type, message and place of an error, on one line; the place is the function's, where one is given."""
    if function is None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    else:
        code = getattr(inspect.unwrap(function), "__code__", None)
        place = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
    return f"{type(error).__name__}: {_message(error)}{place}"


def _message(error: BaseException) -> str:
    try:
        return _line(str(error))
    except Exception:  # its own way to be shown fails
        return "an error without a message"


def _quoted(value: Any) -> str:
    try:
        return _line(repr(value))
    except Exception:
        return f"a {type(value).__name__}"


def _line(text: str) -> str:
    line = " ".join(without_controls(text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
