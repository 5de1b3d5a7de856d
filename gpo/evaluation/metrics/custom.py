"""Custom scoring by user functions: a metric, or a parser in front of a built-in scorer.

A function runs in the event loop of the scoring process, so a slow function delays all other answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, SupportsFloat

from gpo.data.example import Example
from gpo.errors import EvaluationError
from gpo.evaluation.metrics.scorer import BARE_ANSWER, Scorer, explanation, quoted, reading
from gpo.user_code.functions import FunctionReference, shown_value

_ROUNDING = 1e-6
"""Tolerance for values outside [0, 1], since a mean of floats may slightly exceed 1."""


@dataclass(frozen=True, slots=True)
class CustomScorer:
    """A custom metric: ``function(answer, example)`` returns a number in [0, 1] or a boolean.

    It may also return a pair of that and a text that says why, or ``None`` for no text. A function with three required
    parameters gets answer, targets and input instead of the example.
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
        arguments = (example.targets, example.input) if _takes_three(self.metric.load()) else (example,)
        returned = self.metric.call(answer, *arguments)
        value, reason = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
        if not isinstance(reason, str | None):
            raise EvaluationError(
                f"the function {self.metric} returned {shown_value(returned)}; the second value of a pair must be a "
                "text that says why"
            )
        try:
            number = float(value) if isinstance(value, SupportsFloat) else None
        except (TypeError, ValueError, OverflowError):  # such as an array
            number = None
        if number is None or not -_ROUNDING <= number <= 1 + _ROUNDING:
            raise EvaluationError(
                f"the function {self.metric} returned {shown_value(returned)}, not a number from 0 to 1, or a pair of "
                "one and a text"
            )
        return min(max(number, 0.0), 1.0), reason or ""

    def follow_up(self, example: Example) -> str:
        """Asks for the bare answer."""
        return BARE_ANSWER


@cache
def _takes_three(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions that are written in C
        return True
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = sum(one.default is one.empty for one in places)
    return (
        required > 2 or (required < 2 and len(places) > 2) or any(one.kind is one.VAR_POSITIONAL for one in parameters)
    )


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

    def reads_as(self, answer: str, example: Example) -> str:
        """What the scorer reads from the parsed answer. Raises as ``score`` does."""
        return reading(self.scorer, self._parsed(answer, example), example)

    def explain(self, answer: str, example: Example) -> str:
        """What the parser returned, and what the scorer says about it. Raises as ``score`` does."""
        parsed = self._parsed(answer, example)
        return f"the parser returned {quoted(parsed)}; {explanation(self.scorer, parsed, example)}"

    def _parsed(self, answer: str, example: Example) -> str:
        parsed = self.parser.call(answer, example.input)
        if not isinstance(parsed, str):
            raise EvaluationError(f"the function {self.parser} returned {shown_value(parsed)}, not a text")
        return parsed

    def follow_up(self, example: Example) -> str | None:
        """The scorer's question."""
        return self.scorer.follow_up(example)
