"""Reading YAML: plain values only, and no more of them than a configuration has."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 10_000_000
MAX_VALUES = 200_000
"""Counted as often as they are used: ten lists, each of ten times the one before, would be ten billion."""
MAX_NESTING = 100


class UnfitYaml(yaml.YAMLError):
    """A text that cannot be read, or is larger, or nested more deeply, than any configuration; ``problem`` says how."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def read_yaml(text: str) -> Any:
    """The value in a text; only plain ones: nothing in it is run, and no class is looked up.

    Raises:
        yaml.YAMLError: it is not YAML, or beyond the bounds.
        ValueError: it holds what looks like a number or a date and is none.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnfitYaml(f"more than {MAX_CHARACTERS:,} characters")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _num_values(root, {}, 0)
        return yaml.safe_load(text)
    except RecursionError:
        raise UnfitYaml(_TOO_DEEP) from None
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # PyYAML's own way of saying that a tag does not fit what it stands before, as in "!!int []" or "!!float".
        raise UnfitYaml(f"a tag that does not fit its value ({type(error).__name__})") from None


_TOO_DEEP = f"nested more than {MAX_NESTING} deep, or within itself"


def _num_values(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """How many values a node stands for, all that it refers to included."""
    if depth > MAX_NESTING:
        raise UnfitYaml(_TOO_DEEP)
    if id(node) in known:
        return known[id(node)]
    count = 1
    if isinstance(node, yaml.MappingNode):
        count += sum(_num_values(part, known, depth + 1) for entry in node.value for part in entry)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_num_values(part, known, depth + 1) for part in node.value)
    if count > MAX_VALUES:
        raise UnfitYaml(f"more than {MAX_VALUES:,} values")
    known[id(node)] = count
    return count
