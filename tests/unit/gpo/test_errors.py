from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from gpo import errors
from gpo.errors import (
    ConfigError,
    GPOError,
    ModelRefused,
    ModelUnavailable,
    OutOfReach,
    Part,
    PromptUnscored,
    RefusalReason,
)
from gpo.models.protocol import Usage

ARGUMENTS: dict[type[GPOError], tuple[object, ...]] = {
    ConfigError: ("optimizer.steps", "'x' is not a number", "write a number"),
    ModelUnavailable: ("HTTP 503: busy", 5, 2.5, False, True, Usage(prompt_tokens=3)),
    OutOfReach: (Part.EVALUATOR, "no answer"),
    ModelRefused: (
        "HTTP 401: no",
        RefusalReason.KEY,
        "small",
        "http://127.0.0.1/v1",
        "/run/key",
        "seed",
        Usage(prompt_tokens=3),
    ),
    PromptUnscored: ("3 of 4 unscored", True, None),
}
"""The arguments of classes that take more than a message."""


def tree(root: type[GPOError]) -> Iterator[type[GPOError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = [error for error in tree(GPOError) if error.__module__ == errors.__name__]


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda error_class: error_class.__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])  # noqa: S301
def test_an_error_can_be_pickled(error_class: type[GPOError], again) -> None:
    error = error_class(*ARGUMENTS.get(error_class, ("what happened",)))
    arrived = again(error)
    assert type(arrived) is error_class
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
    assert arrived.args == error.args


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda error_class: error_class.__name__)
def test_every_error_is_in_the_tree_of_the_module_s_docstring(error_class: type[GPOError]) -> None:
    assert errors.__doc__ is not None
    assert f"{error_class.__name__} " in errors.__doc__.replace("\n", " ")


def test_a_config_error_says_where_what_and_what_to_do() -> None:
    assert str(ConfigError(*map(str, ARGUMENTS[ConfigError]))) == (
        "optimizer.steps: 'x' is not a number; write a number"
    )


@pytest.mark.parametrize(
    "error",
    [ModelUnavailable("busy", 5, 2.5), ModelRefused("busy", RefusalReason.REQUEST)],
    ids=lambda e: type(e).__name__,
)
def test_a_model_error_shows_its_message_alone(error: GPOError) -> None:
    assert str(error) == "busy"
