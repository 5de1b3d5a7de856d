from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpo.data.example import Example
from gpo.data.files import Fields, example_of
from gpo.errors import EvaluationError
from gpo.evaluation.metrics import CustomScorer, NumberScorer, ParsedScorer
from gpo.testing.contracts import ScorerContract
from gpo.user_code.functions import FunctionReference, passed_functions

EXAMPLE = Example("1 + 1?", ("2", "two"))
WriteModule = Callable[[str], str]


def scored(value: object, module: WriteModule, folder: Path, answer: str = "2") -> float:
    """What a metric that returns this (Python source) scores."""
    name = module(f"def metric(answer, targets, input):\n    return {value}\n")
    return CustomScorer(FunctionReference(name, "metric", (str(folder),))).score(answer, EXAMPLE)


class TestMetric(ScorerContract):
    scorer = CustomScorer(FunctionReference("tests.data.own_scoring", "equal"))
    example = EXAMPLE


class TestParser(ScorerContract):
    scorer = ParsedScorer(FunctionReference("tests.data.own_scoring", "last_line"), NumberScorer())
    example = Example("1 + 1?", ("2", "2.0"))


def test_a_metric_is_given_answer_targets_and_input(module: WriteModule, tmp_path: Path) -> None:
    assert scored("(answer, targets, input) == ('2', ('2', 'two'), '1 + 1?')", module, tmp_path) == 1.0
    assert scored("len(answer) / 4", module, tmp_path) == 0.25


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("True", 1.0),
        ("0", 0.0),
        ("1 + 1e-7", 1.0),
        ("-1e-9", 0.0),
        ("__import__('numpy').float32(0.5)", 0.5),
        ("__import__('numpy').bool_(True)", 1.0),
        ("__import__('fractions').Fraction(1, 4)", 0.25),
    ],
)
def test_numbers_and_truth_values_count(value: str, number: float, module: WriteModule, tmp_path: Path) -> None:
    found = scored(value, module, tmp_path)
    assert (found, type(found)) == (number, float)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("None", "None"),
        ("'1'", "'1'"),
        ("1.5", "1.5"),
        ("1.001", "1.001"),
        ("-0.1", "-0.1"),
        ("float('nan')", "nan"),
        ("10 ** 400", "1000"),
        ("1j", "1j"),
        ("__import__('numpy').zeros(2)", "array"),
        ("type('Odd', (), {'__repr__': lambda self: 1 / 0})()", "a Odd"),
        ("'x' * 9999", "'xxx"),
    ],
)
def test_any_other_value_is_an_error_and_not_0(value: str, shown: str, module: WriteModule, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as caught:
        scored(value, module, tmp_path)
    message = str(caught.value)
    assert f":metric returned {shown}" in message
    assert message.endswith("not a number from 0 to 1, or a pair of one and a text")
    assert len(message) < 500


@pytest.mark.parametrize(
    ("value", "number", "reason"),
    [("(0.5, 'too short')", 0.5, "too short"), ("(True, None)", 1.0, ""), ("(0, '')", 0.0, ""), ("0.5", 0.5, "")],
)
def test_a_metric_may_say_why(value: str, number: float, reason: str, module: WriteModule, tmp_path: Path) -> None:
    name = module(f"def metric(answer, targets, input):\n    return {value}\n")
    scorer = CustomScorer(FunctionReference(name, "metric", (str(tmp_path),)))
    assert scorer.score_with_reason("2", EXAMPLE) == (number, reason)
    assert scorer.score("2", EXAMPLE) == number


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("('too short', 0.5)", "the second value of a pair must be a text"),
        ("(0.5, ['too short'])", "the second value of a pair must be a text"),
        ("(1.5, 'too long')", "not a number from 0 to 1, or a pair"),
        ("(0.5,)", "not a number from 0 to 1, or a pair"),
        ("(0.5, 'too short', 1)", "not a number from 0 to 1, or a pair"),
        ("[0.5, 'too short']", "not a number from 0 to 1, or a pair"),
    ],
)
def test_any_other_pair_is_an_error(value: str, problem: str, module: WriteModule, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=problem) as caught:
        scored(value, module, tmp_path)
    assert "metric returned " in str(caught.value)


def test_what_a_parser_returned_is_part_of_the_explanation() -> None:
    explained = TestParser.scorer.explain("It is 4.\n3", TestParser.example)
    assert explained == 'the parser returned "3"; read as "3", but the right answer is "2"'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return {}[answer]", "KeyError: '2'"),
        ("raise ValueError('first\\nsecond')", "ValueError: first second"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import asyncio; raise asyncio.CancelledError('of a task')", "CancelledError: of a task"),
        ("assert False", "AssertionError"),
        ("raise RuntimeError('x' * 9999)", "RuntimeError: xxx"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})", "Odd: an error without a message"),
    ],
)
def test_a_failing_function_is_named_with_its_error_and_line(
    body: str, said: str, module: WriteModule, tmp_path: Path
) -> None:
    name = module(f"def metric(answer, targets, input):\n    {body}\n")
    with pytest.raises(EvaluationError) as caught:
        CustomScorer(FunctionReference(name, "metric", (str(tmp_path),))).score("2", EXAMPLE)
    message = str(caught.value)
    assert f"the function {name}:metric failed: {said}" in message
    assert f"{name}.py, line 2)" in message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("given", [None, 2, b"2"])
def test_a_parser_must_return_a_text(given: object, module: WriteModule, tmp_path: Path) -> None:
    name = module(f"def parse(answer, input):\n    return {given!r}\n")
    with pytest.raises(EvaluationError, match=r":parse returned .* not a text"):
        ParsedScorer(FunctionReference(name, "parse", (str(tmp_path),)), NumberScorer()).score("2", EXAMPLE)


def test_the_parsed_answer_is_scored(module: WriteModule, tmp_path: Path) -> None:
    name = module("def parse(answer, input):\n    return answer.split('|')[1] if '1 + 1' in input else ''\n")
    scorer = ParsedScorer(FunctionReference(name, "parse", (str(tmp_path),)), NumberScorer())
    assert [scorer.score(answer, EXAMPLE) for answer in ("3|2|3", "2|3|2")] == [1.0, 0.0]
    assert scorer.follow_up(EXAMPLE) == NumberScorer().follow_up(EXAMPLE)


def test_type_hints_of_a_class_in_a_user_s_module_resolve(module: WriteModule, tmp_path: Path) -> None:
    source = """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import get_type_hints
        @dataclass
        class Found:
            value: float
        def metric(answer, targets, input):
            return Found(1.0).value if get_type_hints(Found) == {"value": float} else 0.0
    """
    name = module(source)
    assert CustomScorer(FunctionReference(name, "metric", (str(tmp_path),))).score("2", EXAMPLE) == 1.0


def test_arguments_that_do_not_fit_point_at_the_function(module: WriteModule, tmp_path: Path) -> None:
    name = module("\n\ndef metric(answer):\n    return 1\n")
    with pytest.raises(
        EvaluationError, match=rf"takes 1 positional argument but 2 were given \(.*{name}\.py, line 3\)"
    ):
        CustomScorer(FunctionReference(name, "metric", (str(tmp_path),))).score("2", EXAMPLE)


@pytest.mark.parametrize(
    "signature", ["answer, example", "answer, example, weight=0.5", "answer, example, *, weight=0.5"]
)
def test_a_metric_with_two_required_parameters_gets_the_example_with_its_row(
    signature: str, module: WriteModule, tmp_path: Path
) -> None:
    name = module(f"def metric({signature}):\n    return answer == example.target and example['weight'] == 3\n")
    scorer = CustomScorer(FunctionReference(name, "metric", (str(tmp_path),)))
    example = example_of({"input": "1 + 1", "target": "2", "weight": 3}, Fields(keeps_rows=True), "row 1")
    assert (scorer.score("2", example), scorer.score("3", example)) == (1.0, 0.0)
    with pytest.raises(EvaluationError, match="there is no column 'weight'; the columns are: "):
        scorer.score("2", EXAMPLE)


def test_a_function_that_a_program_passes_is_used_under_its_name() -> None:
    scorer = CustomScorer(FunctionReference("__main__", "metric"))
    with pytest.raises(EvaluationError, match="passed as an object by a script or notebook, and is known only there"):
        scorer.score("2", EXAMPLE)
    with passed_functions({"__main__:metric": lambda answer, example: answer == example.target}):
        assert scorer.score("2", EXAMPLE) == 1.0


@pytest.mark.filterwarnings("error")
def test_an_async_function_is_refused(module: WriteModule, tmp_path: Path) -> None:
    name = module("async def metric(answer, targets, input):\n    return 1\n")
    with pytest.raises(EvaluationError, match=r":metric is async; write a plain function"):
        CustomScorer(FunctionReference(name, "metric", (str(tmp_path),))).score("2", EXAMPLE)


def test_a_reference_is_pickled_without_its_function(module: WriteModule, tmp_path: Path) -> None:
    scorer = CustomScorer(FunctionReference(module("def metric(*_): return 1"), "metric", (str(tmp_path),)))
    arrived = pickle.loads(pickle.dumps(scorer))  # noqa: S301
    assert arrived == scorer
    assert str(tmp_path) not in sys.path
    assert arrived.score("2", EXAMPLE) == 1.0
