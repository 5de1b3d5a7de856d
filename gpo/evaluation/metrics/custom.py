"""Custom scoring by user functions: a metric, or a parser in front of a built-in scorer.

A function is referenced as ``module:function`` and imported in the command and in every scoring process. On a cluster,
the module must be installed on every node or exist there at the same path. Functions run in the event loop of the
scoring process, so a slow function delays all other answers.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsFloat

from gpo.data.example import Example
from gpo.errors import EvaluationError
from gpo.evaluation.metrics.scorer import BARE_ANSWER, Scorer, explanation, quoted
from gpo.evaluation.metrics.user_modules import user_module
from gpo.text import one_line

_SHOWN = 300
"""Characters of an error or a value of the user function that a message quotes."""
_ROUNDING = 1e-6
"""Tolerance for values outside [0, 1], since a mean of floats may slightly exceed 1."""


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """A user function by name, so that it can be pickled.

    Attributes:
        module: dotted name, searched in the folders in order, and then on Python's search path.
        name: name of the function in the module.
        folders: absolute paths that are not on Python's search path (see ``user_modules``).
    """

    module: str
    name: str
    folders: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    def load(self) -> Callable[..., Any]:
        """Import the function.

        Raises:
            EvaluationError: there is no such module or function, or the import fails.
        """
        try:
            module = user_module(self.module, self.folders)
        except (Exception, SystemExit) as error:  # a user module may raise anything
            if isinstance(error, ModuleNotFoundError) and self._is_missing(error):
                searched = [*(f"in {folder!r}" for folder in self.folders), "on Python's search path"]
                raise EvaluationError(f"there is no module {self.module!r} {' or '.join(searched)}") from None
            raise EvaluationError(f"the module {self.module!r} cannot be imported: {_shown(error)}") from None
        function = getattr(module, self.name, None)
        if not callable(function):
            path = getattr(module, "__file__", None) or "built in"
            problem = "is not a function" if hasattr(module, self.name) else "is not defined"
            raise EvaluationError(f"{self.name!r} {problem} in the module {self.module!r} ({path})")
        return function  # type: ignore[no-any-return]

    def call(self, *arguments: Any) -> Any:
        """Call the function and return its value.

        Raises:
            EvaluationError: the function cannot be imported, is async, or raises; the message says where and what.
        """
        function = self.load()
        try:
            value = function(*arguments)
        except (Exception, SystemExit) as error:
            # If its first line was not reached, the arguments do not match.
            inside = error.__traceback__ is None or error.__traceback__.tb_next is not None
            shown = _shown(error, None if inside else function)
            raise EvaluationError(f"the function {self} failed: {shown}") from None
        if inspect.iscoroutine(value):
            value.close()
            raise EvaluationError(f"the function {self} is async; write a plain function")
        return value

    def _is_missing(self, missing: ModuleNotFoundError) -> bool:
        """Whether this module itself is missing, not a module that it imports."""
        return f"{self.module}.".startswith(f"{missing.name}.")


@dataclass(frozen=True, slots=True)
class CustomScorer:
    """A custom metric: ``function(answer, targets, input)`` returns a number in [0, 1] or a boolean.

    It may also return a pair of that and a text that says why, or ``None`` for no text.
    """

    metric: FunctionReference

    def score(self, answer: str, example: Example) -> float:
        """The metric's value.

        Raises:
            EvaluationError: the function fails or returns anything else; such an answer is not scored 0.
        """
        return self.score_with_reason(answer, example)[0]

    def score_with_reason(self, answer: str, example: Example) -> tuple[float, str]:
        """The metric's value and, if the metric gives one, the reason. Raises as ``score`` does."""
        returned = self.metric.call(answer, example.targets, example.input)
        value, reason = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
        if not isinstance(reason, str | None):
            raise EvaluationError(
                f"the function {self.metric} returned {_quoted(returned)}; the second value of a pair must be a text "
                "that says why"
            )
        try:
            number = float(value) if isinstance(value, SupportsFloat) else None
        except (TypeError, ValueError, OverflowError):  # such as an array
            number = None
        if number is None or not -_ROUNDING <= number <= 1 + _ROUNDING:
            raise EvaluationError(
                f"the function {self.metric} returned {_quoted(returned)}, not a number from 0 to 1, or a pair of one "
                "and a text"
            )
        return min(max(number, 0.0), 1.0), reason or ""

    def follow_up(self, example: Example) -> str:
        """Asks for the bare answer."""
        return BARE_ANSWER


@dataclass(frozen=True, slots=True)
class ParsedScorer:
    """A custom parser in front of a scorer: ``function(answer, input)`` returns the text to score."""

    parser: FunctionReference
    scorer: Scorer

    def score(self, answer: str, example: Example) -> float:
        """Score the parsed answer.

        Raises:
            EvaluationError: the function fails or does not return a text.
        """
        return self.scorer.score(self._parsed(answer, example), example)

    def explain(self, answer: str, example: Example) -> str:
        """What the parser returned, and what the scorer says about it. Raises as ``score`` does."""
        parsed = self._parsed(answer, example)
        return f"the parser returned {quoted(parsed)}; {explanation(self.scorer, parsed, example)}"

    def _parsed(self, answer: str, example: Example) -> str:
        parsed = self.parser.call(answer, example.input)
        if not isinstance(parsed, str):
            raise EvaluationError(f"the function {self.parser} returned {_quoted(parsed)}, not a text")
        return parsed

    def follow_up(self, example: Example) -> str | None:
        """The scorer's question."""
        return self.scorer.follow_up(example)


def _shown(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """Type, message and location of an error on one line; the location is that of the function, if given."""
    if function is None:
        frames = traceback.extract_tb(error.__traceback__)
        location = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    else:
        code = getattr(inspect.unwrap(function), "__code__", None)
        location = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
    return f"{type(error).__name__}: {_message(error)}{location}"


def _message(error: BaseException) -> str:
    try:
        return one_line(str(error), _SHOWN)
    except Exception:  # ``str`` of the error fails
        return "an error without a message"


def _quoted(value: Any) -> str:
    try:
        return one_line(repr(value), _SHOWN)
    except Exception:
        return f"a {type(value).__name__}"
