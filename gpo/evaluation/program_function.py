"""The function of a program: what it gets, and what it may return or raise."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpo.errors import AnswerError, EvaluationError
from gpo.models.replies import MAX_REPLY_CHARACTERS
from gpo.user_code.functions import FunctionReference, shown_error, shown_value

_OF_ANSWERS = (ValueError, LookupError, TypeError, AttributeError)
"""Errors that a model's answer can cause: JSON that is none, a list in place of a section, a missing field or text, a
tool of no such name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program may return in place of a text.

    Attributes:
        text: the answer, which is graded.
        trace: how the program came to it, for the optimizer model; the model calls are known without it.
        score: in [0, 1], if the program scores its answer itself; ``None`` leaves that to ``answer`` of the task.
        reason: why the score is below 1, for the optimizer model.
    """

    text: str
    trace: str = ""
    score: float | None = None
    reason: str = ""


class PromptTexts(dict[str, str]):
    """The prompts of a program. A name that does not exist is a mistake in the program, whatever a model replied."""

    def __missing__(self, name: str) -> str:
        raise EvaluationError(f"there is no prompt {name!r}; the prompts are: {', '.join(self)}")


@dataclass(frozen=True, slots=True)
class Raised:
    """An error that a program raised, in words.

    Attributes:
        fault: its type and message.
        shown: the same, with the line of the program.
        is_answer_error: whether the program raised it to say that its answer is wrong.
        can_be_of_answer: whether a model's answer can be the cause.
    """

    fault: str
    shown: str
    is_answer_error: bool
    can_be_of_answer: bool

    @classmethod
    def by(cls, function: Callable[..., Any], error: BaseException) -> Raised:
        """What is known of an error of a function."""
        if isinstance(error.__cause__, StopIteration):  # which no coroutine can raise
            error = error.__cause__
        return cls(
            f"{type(error).__name__}: {error}",
            shown_error(error, within=function),
            isinstance(error, AnswerError),
            isinstance(error, _OF_ANSWERS),
        )


def is_async(function: Callable[..., Any]) -> bool:
    """Whether the function, or the object's method ``__call__``, is a coroutine function."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def answer_in(returned: Any, function: FunctionReference) -> Answer:
    """The answer that a program returned.

    Raises:
        EvaluationError: it is none.
    """
    if isinstance(returned, Answer) and all(
        isinstance(text, str) for text in (returned.text, returned.trace, returned.reason)
    ):
        score = returned.score
        if score is not None and not (isinstance(score, int | float) and 0 <= score <= 1):
            raise EvaluationError(
                f"the program {function} returned the score {shown_value(score)}, not a number from 0 to 1"
            )
        texts = (text[:MAX_REPLY_CHARACTERS] for text in (returned.text, returned.trace, returned.reason))
        text, trace, reason = texts
        return Answer(text, trace, None if score is None else float(score), reason)
    if isinstance(returned, str | int | float):
        return Answer(str(returned)[:MAX_REPLY_CHARACTERS])
    raise EvaluationError(f"the program {function} returned a {type(returned).__name__}, not a text or a gpo.Answer")
