"""Functions of a user, by name: metrics, answer parsers and strategies.

A function is referenced as ``module:function`` and imported in the command and in every process that calls it. On a
cluster, the module must be installed on every node or exist there at the same path.
"""

from __future__ import annotations

import inspect
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from types import CodeType
from typing import Any

from gpo.errors import EvaluationError
from gpo.text import one_line
from gpo.user_code.modules import user_module

_SHOWN = 300
"""Characters of an error or a value of the user function that a message quotes."""


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """A user function by name, so that it can be pickled.

    Attributes:
        module: dotted name, searched in the folders in order, and then on Python's search path.
        name: name of the function in the module.
        folders: absolute paths that are not on Python's search path (see ``modules``).
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
        function = self.find()
        if not callable(function):
            module = user_module(self.module, self.folders)
            raise EvaluationError(f"{self.name!r} is not a function in the module {_place(module, self.module)}")
        return function  # type: ignore[no-any-return]

    def find(self) -> Any:
        """Import what has the name, whether it can be called or not.

        Raises:
            EvaluationError: there is no such module or object, or the import fails.
        """
        if (passed := _passed.get().get(str(self))) is not None:
            return passed
        if self.module == "__main__":
            raise EvaluationError(
                f"the function {self.name!r} was passed as an object by a script or notebook, and is known only there; "
                "continue there with the same call. A function of a module can be used everywhere"
            )
        try:
            module = user_module(self.module, self.folders)
        except (Exception, SystemExit) as error:  # a user module may raise anything
            if isinstance(error, ModuleNotFoundError) and self._is_missing(error):
                searched = [*(f"in {folder!r}" for folder in self.folders), "on Python's search path"]
                raise EvaluationError(f"there is no module {self.module!r} {' or '.join(searched)}") from None
            raise EvaluationError(f"the module {self.module!r} cannot be imported: {shown_error(error)}") from None
        if not hasattr(module, self.name):
            raise EvaluationError(f"{self.name!r} is not defined in the module {_place(module, self.module)}")
        return getattr(module, self.name)

    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with the text of the function, its defaults and what it closes over.

        Of objects that it closes over, only plain values count. Other functions that it calls do not count.

        Raises:
            EvaluationError: as for ``load``.
        """
        text = _content(self.load(), depth=3)
        return blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()

    def call(self, *arguments: Any, **options: Any) -> Any:
        """Call the function and return its value.

        Raises:
            EvaluationError: the function cannot be imported, is async, or raises; the message says where and what.
        """
        function = self.load()
        try:
            value = function(*arguments, **options)
        except (Exception, SystemExit, CancelledError) as error:  # the last could be taken for the end of the run
            # If its first line was not reached, the arguments do not match.
            inside = error.__traceback__ is None or error.__traceback__.tb_next is not None
            shown = shown_error(error, None if inside else function, within=function)
            raise EvaluationError(f"the function {self} failed: {shown}") from None
        if inspect.iscoroutine(value):
            value.close()
            raise EvaluationError(f"the function {self} is async; write a plain function")
        return value

    def _is_missing(self, missing: ModuleNotFoundError) -> bool:
        """Whether this module itself is missing, not a module that it imports."""
        return f"{self.module}.".startswith(f"{missing.name}.")


def _place(module: Any, name: str) -> str:
    return f"{name!r} ({getattr(module, '__file__', None) or 'built in'})"


def _content(value: Any, depth: int) -> str:
    """A text that changes with a function: its source or code, its defaults, what it closes over, and its arguments."""
    if isinstance(value, partial):
        parts = [_content(value.func, depth - 1), _plain(value.args), _plain(tuple(sorted(value.keywords.items())))]
        return "\n".join(parts)
    function = inspect.unwrap(value)
    code = _code(function)
    if code is None or depth == 0:
        return _plain(value)
    try:
        parts = [inspect.getsource(code)]
    except (OSError, TypeError):  # it has no file
        constants = [one.co_code if isinstance(one, CodeType) else one for one in code.co_consts]
        parts = [repr((code.co_code, code.co_names, constants))]
    named = getattr(function, "__kwdefaults__", None) or {}
    parts += [_plain(getattr(function, "__defaults__", None)), _plain(tuple(named.items()))]
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            held = cell.cell_contents
            parts.append(_content(held, depth - 1) if inspect.isfunction(held) else _plain(held))
    if not hasattr(function, "__code__"):  # an object that can be called
        parts.append(_plain(tuple(vars(function).items())) if hasattr(function, "__dict__") else "")
    return "\n".join(parts)


def _plain(value: Any) -> str:
    """Values that cannot change as text; of others only their type, since a function may keep notes in them."""
    if value is None or isinstance(value, str | bytes | int | float | bool):
        return repr(value)
    if isinstance(value, tuple | frozenset):
        return f"{type(value).__name__}{[_plain(one) for one in value]}"
    return type(value).__qualname__


_passed: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("_passed", default={})  # noqa: B039  # never changed


@contextmanager
def passed_functions(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let references find these objects, in this context and in the tasks that start in it.

    Args:
        functions: ``module:name`` → function.
    """
    token = _passed.set(functions)
    try:
        yield
    finally:
        _passed.reset(token)


def shown_error(
    error: BaseException, function: Callable[..., Any] | None = None, within: Callable[..., Any] | None = None
) -> str:
    """Type, message and location of an error on one line.

    Args:
        function: the location is that of this function, rather than of the line that failed.
        within: the location is the last line in this function's file, rather than in a library that it calls.
    """
    if function is not None:
        code = _code(function)
        location = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
    else:
        frames = traceback.extract_tb(error.__traceback__)
        code = _code(within) if within is not None else None
        own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
        last = (own or frames)[-1:]
        location = f" ({last[0].filename}, line {last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {_message(error)}{location}"


def _code(function: Callable[..., Any]) -> CodeType | None:
    function = inspect.unwrap(function)
    called = function if hasattr(function, "__code__") else type(function).__call__
    return getattr(called, "__code__", None)


def _message(error: BaseException) -> str:
    try:
        return one_line(str(error), _SHOWN)
    except Exception:  # ``str`` of the error fails
        return "an error without a message"


def shown_value(value: Any) -> str:
    """A value of a user function on one line."""
    try:
        return one_line(repr(value), _SHOWN)
    except Exception:
        return f"a {type(value).__name__}"
