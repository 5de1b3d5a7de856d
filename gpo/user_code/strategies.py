"""Strategies of a user: objects that a function of the user returns.

Other processes get the function's name and its arguments, and call the function themselves. The object therefore need
not pickle. What it keeps between two calls is lost when a search moves to another process or is resumed.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any, ClassVar

from gpo.errors import EvaluationError, GPOError, StrategyError
from gpo.runtime.concurrency import is_cancellation
from gpo.runtime.process import PicklesFieldsOnly
from gpo.user_code.functions import FunctionReference, shown_error, shown_value


@dataclass(frozen=True)
class OwnStrategy(PicklesFieldsOnly):
    """A strategy of a user. A subclass fulfils the protocol: it calls the user's object, and checks what that returns.

    Attributes:
        protocol: what the user's object must fulfil.
        function: returns the object.
        options: keyword arguments from the configuration.
        given: further keyword arguments, for those parameters that the function has.
    """

    protocol: ClassVar[Any]
    function: FunctionReference
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def check(self) -> None:
        """Build the object, and check that it has the methods of the protocol.

        Raises:
            StrategyError: it cannot be built, lacks a method, or has one with other parameters.
        """
        require_methods(self.own, self.protocol, f"the function {self.function} returned")

    @cached_property
    def own(self) -> Any:
        """The user's object, built once in each process.

        Raises:
            StrategyError: the function cannot be imported, is async, or raises.
        """
        try:
            parameters = _parameters(self.function.load())
            given = {name: value for name, value in self.given.items() if name in parameters}
            return self.function.call(**given, **self.options)
        except EvaluationError as error:
            raise StrategyError(str(error)) from None

    @contextmanager
    def calling(self, method: str) -> Iterator[Any]:
        """The user's object, in a block that calls one of its methods.

        Raises:
            GPOError: as the method does; of a group of errors, the first such one.
            StrategyError: the method raises anything else.
        """
        own = self.own
        try:
            yield own
        except (Exception, SystemExit, CancelledError) as error:
            if is_cancellation(error):
                raise
            known = _first_known(error)
            raise known or StrategyError(f"{method} of {self.function} failed: {shown_error(error)}") from None

    def listed(self, method: str, returned: Any) -> tuple[Any, ...]:
        """What a method returned, as a tuple.

        Raises:
            StrategyError: it is neither a list nor a tuple.
        """
        if not isinstance(returned, list | tuple):
            raise self.refuse(method, returned, "not a list or a tuple")
        return tuple(returned)

    def refuse(self, method: str, returned: Any, problem: str) -> StrategyError:
        """The error for a value that a method returned."""
        return StrategyError(f"{method} of {self.function} returned {shown_value(returned)}, {problem}")


def require_methods(value: Any, protocol: Any, what: str) -> None:
    """Check that an object has the methods of a protocol, and that they take its arguments.

    Args:
        what: the beginning of the error, such as ``the function x returned``.

    Raises:
        StrategyError: a method is missing, has other parameters, or is async where it must not be, or the other way.
    """
    for name, expected in _methods(protocol):
        method = value if name == "__call__" else getattr(value, name, None)
        wanted = f"{'async ' if iscoroutinefunction(expected) else ''}{name}({', '.join(_names(expected))})"
        if not callable(method):
            raise StrategyError(f"{what} {shown_value(value)}, which has no method {wanted}")
        is_async = iscoroutinefunction(method) or iscoroutinefunction(type(method).__call__)
        if is_async != iscoroutinefunction(expected):
            problem = "async, and must be a plain method" if is_async else "a plain method, and must be async"
            raise StrategyError(f"{what} {shown_value(value)}, whose method {name} is {problem}")
        *positional, keywords = _arguments(expected)
        try:
            signature(method).bind(*positional, **keywords)
        except TypeError as error:
            raise StrategyError(
                f"{what} {shown_value(value)}, whose method {name} cannot be called as {wanted}: {error}"
            ) from None
        except ValueError:  # a function in C says nothing of its parameters
            pass


def _methods(protocol: Any) -> list[tuple[str, Callable[..., Any]]]:
    return [
        (name, value)
        for name, value in vars(protocol).items()
        if callable(value) and (name == "__call__" or not name.startswith("_"))
    ]


def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    try:
        return signature(function).parameters
    except (TypeError, ValueError):  # some functions that are written in C
        return {}


def _names(method: Callable[..., Any]) -> list[str]:
    """The parameters of a method of a protocol, without ``self``."""
    return list(signature(method).parameters)[1:]


def _arguments(method: Callable[..., Any]) -> list[Any]:
    """Something for each positional parameter, and at the end a dictionary for those that are passed by keyword."""
    parameters = list(signature(method).parameters.values())[1:]
    keywords = {one.name: None for one in parameters if one.kind is Parameter.KEYWORD_ONLY}
    return [*[None] * (len(parameters) - len(keywords)), keywords]


def _first_known(error: BaseException) -> GPOError | None:
    """The error itself or the first of a group, if it is one that the program raises on purpose."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_first_known, error.exceptions)), None)
    return error if isinstance(error, GPOError) else None
