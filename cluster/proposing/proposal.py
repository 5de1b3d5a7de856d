"""Finds out what a configuration for a data file needs: columns, kind of answer, splits and a first prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from cluster.proposing.answers import Answer, answer_of, first_prompt, with_inputs
from cluster.proposing.columns import Column, columns_of, named, target_of
from cluster.proposing.rows import Data
from gpo.data.example import Example
from gpo.data.files import Fields, cell_texts, example_of
from gpo.data.splits import distinct, row_warnings, with_equal_numbers_alike
from gpo.data.template import ROW, Template
from gpo.errors import ConfigError
from gpo.intervals import wilson
from gpo.text import one_line

_FEW_ROWS, _MANY_ROWS = 50, 750
_TRAIN, _VAL, _TEST = 150, 300, 300
"""Examples of each split that are enough where there are many."""
_LISTED = 5
_MOST_INPUTS = 10
_LONG = 8_000
"""Characters of an input that cost noticeably, some 2,000 tokens."""
_EMBEDDED_MOST = 5_000
"""Characters that surely fit into the embedded model's context, with the prompt and the answer."""
_NUMBERS, _LEAK = "holds numbers", "gives the answer away"
_SECOND_CHOICE = (_NUMBERS, _LEAK, "looks like a date")
"""Columns that are the input if there is no other, in this order."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What ``gpo init`` proposes.

    Attributes:
        data: the rows.
        inputs, target: columns.
        left_out: the other columns by name, and why.
        answer: how answers are scored.
        prompt: the first prompt.
        is_template: whether the prompt contains the input.
        section: the section ``data``, without the name of the file.
        sizes: the section ``evaluation``.
        doubts: what the user should check, by the option that it concerns; first of all ``data``.
        num_inputs: how many different inputs there are.
        lengths: of the inputs in characters: mean and maximum.
    """

    data: Data
    inputs: tuple[Column, ...]
    target: Column
    left_out: Mapping[str, str]
    answer: Answer
    prompt: str
    is_template: bool
    section: Mapping[str, Any]
    sizes: Mapping[str, int]
    doubts: Mapping[str, Sequence[str]]
    num_inputs: int
    lengths: tuple[float, int]


def proposed(data: Data, inputs: Sequence[str], target: str | None, *, is_embedded: bool) -> Proposal:
    """The proposal for a data file.

    Args:
        inputs: the columns that the user names as input; none leaves the choice to the program.
        target: the column that the user names as target; ``None`` leaves the choice to the program.
        is_embedded: whether the task model is the embedded one, which reads only short texts.

    Raises:
        ConfigError: a column is missing or has empty cells, or there are too few rows or columns.
    """
    columns = columns_of(data.rows)
    chosen, about_target = target_of(columns, target)
    labelled = data.with_values(chosen.name)
    if unlabelled := data.parts.keys() - labelled.parts.keys():
        data, columns = labelled, columns_of(labelled.rows)
        chosen = columns[chosen.name]
        about_target.append(
            f"These splits have no targets, and are not used: {', '.join(map(named, sorted(unlabelled)))}."
        )
    _require_filled(chosen, data, "--target")
    if len(chosen.distinct) < 2 < len(chosen.values):
        raise ConfigError(
            "--target" if target else "FILE",
            f"column {named(chosen.name)} always has the value {named(chosen.texts[0])}",
            "name another column with --target",
        )
    targets = with_equal_numbers_alike({"": _targets(chosen, data)})[""]
    answer = answer_of(targets)
    used, left_out, about_inputs = _inputs_of(columns, chosen, inputs, answer, targets)
    is_template = len(used) > 1
    if not is_template:
        _require_filled(used[0], data, "--input")
    fields = _fields(used, chosen)
    places = iter(data.places)
    parts = {
        part: {number: example_of(row, fields, f"FILE ({next(places)})") for number, row in rows.items()}
        for part, rows in data.parts.items()
    }
    examples = [example for part_examples in parts.values() for example in part_examples.values()]
    answer = with_inputs(answer, examples)
    num_inputs = len(distinct(examples))
    section, sizes, about_splits = (
        _file_split(num_inputs) if isinstance(data.source, Path) else _hub_splits(parts, answer)
    )
    repeats = [_sentence(text) for text in row_warnings(parts[""])] if "" in parts else []
    lengths = [len(example.input) for example in examples]
    instruction = first_prompt(answer, chosen.name)
    doubts = {
        "data": [*about_splits, *repeats, *_long_inputs(lengths, is_embedded=is_embedded)],
        "fields": [*about_target, *about_inputs],
        "answer": answer.doubts,
    }
    return Proposal(
        data=data,
        inputs=used,
        target=chosen,
        left_out=left_out,
        answer=answer,
        prompt=_template(used, instruction) if is_template else instruction,
        is_template=is_template,
        section=section,
        sizes=sizes,
        doubts=doubts,
        num_inputs=num_inputs,
        lengths=(fmean(lengths), max(lengths)),
    )


def _targets(column: Column, data: Data) -> tuple[Example, ...]:
    """Examples with the targets in a column, without inputs."""
    cells = zip(column.values, data.places, strict=True)
    return tuple(Example("", tuple(cell_texts(value, column.name, f"FILE ({place})"))) for value, place in cells)


def _require_filled(column: Column, data: Data, option: str) -> None:
    """Require that no cell is empty, which the program would refuse one by one."""
    places = data.places
    empty = [place for place, value in zip(places, column.values, strict=True) if value is None]
    if empty:
        more = f" and {len(empty) - _LISTED:,} more" if len(empty) > _LISTED else ""
        raise ConfigError(
            "FILE",
            f"column {named(column.name)} is empty in {len(empty):,} of {len(places):,} rows: "
            f"{', '.join(empty[:_LISTED])}{more}",
            f"fill these cells in, remove these rows, or name another column with {option}",
        )


# -- inputs -----------------------------------------------------------------------------------------------------------


def _inputs_of(
    columns: Mapping[str, Column], target: Column, wanted: Sequence[str], answer: Answer, targets: Sequence[Example]
) -> tuple[tuple[Column, ...], dict[str, str], list[str]]:
    """The columns of the input; the others with the reason why they are none; and what is doubtful."""
    others = {name: column for name, column in columns.items() if column is not target}
    reasons = {name: _reason(column, target, answer, targets) for name, column in others.items()}
    if wanted:
        for name in wanted:
            if name not in others:
                what = (
                    "is the target" if name in columns else f"is no column; there are {', '.join(map(named, others))}"
                )
                raise ConfigError("--input", f"{named(name)} {what}", "name another column")
        used = tuple(others[name] for name in dict.fromkeys(wanted))
        doubts = [f"{_statement([column], _LEAK)}." for column in used if reasons[column.name] == _LEAK]
        return used, {name: reasons[name] or "not named" for name in others if others[name] not in used}, doubts
    used = tuple(column for name, column in others.items() if reasons[name] is None)
    doubts = []
    for reason in _SECOND_CHOICE if not used else ():
        used = tuple(column for name, column in others.items() if reasons[name] == reason)
        if used:
            if reason != _NUMBERS:
                doubts.append(f"{_statement(used, reason)}, but there is no other input.")
            break
    if not used:
        why = "; ".join(f"{named(name)} {reason}" for name, reason in reasons.items())
        raise ConfigError("FILE", f"no column is left for the input: {why}", "name one with --input")
    for column in used[_MOST_INPUTS:]:
        reasons[column.name] = "too many columns"
    if len(used) > _MOST_INPUTS:
        doubts.append(f"There are {len(used)} columns that could be inputs; the first {_MOST_INPUTS} are used.")
        used = used[:_MOST_INPUTS]
    left_out = {name: reasons[name] or "" for name, column in others.items() if column not in used}
    if leaks := [others[name] for name, reason in left_out.items() if reason == _LEAK]:
        doubts.append(f"{_statement(leaks, _LEAK)}, so the prompt does not contain {'them' if leaks[1:] else 'it'}.")
    if split := [others[name] for name, reason in left_out.items() if reason == "seems to name splits"]:
        doubts.append(
            f"{_statement(split, 'seems to name splits')}, which are not used here. To keep them, write one file for "
            "each split, and name the three files: data: {train: …, val: …, test: …}."
        )
    return used, left_out, doubts


def _statement(columns: Sequence[Column], reason: str) -> str:
    """A sentence such as "Columns 'a' and 'b' give the answer away", without its end."""
    verb, _, rest = reason.partition(" ")
    names = " and ".join(named(column.name) for column in columns)
    return f"Columns {names} {verb.removesuffix('s')} {rest}" if len(columns) > 1 else f"Column {names} {reason}"


def _reason(column: Column, target: Column, answer: Answer, targets: Sequence[Example]) -> str | None:
    """Why a column is not part of the input."""
    if column.reason is not None:
        return column.reason
    texts = [None if value is None else str(value) for value in column.values]
    if _determines(column, target) or answer.gives_away(texts, targets):
        return _LEAK
    return _NUMBERS if column.is_number else None


def _determines(column: Column, target: Column) -> bool:
    """Whether each value of a category goes with one target, and each target with one value."""
    pairs = {(str(value), str(right)) for value, right in zip(column.values, target.values, strict=True)}
    return column.is_category and not target.is_nested and len(pairs) == len(column.distinct) == len(target.distinct)


def _fields(inputs: Sequence[Column], target: Column) -> Fields:
    if len(inputs) == 1:
        return Fields(inputs[0].name, target.name)
    texts = tuple(Template(f"{{{{ {_expression(column)} }}}}", "tasks[0].prompt") for column in inputs)
    return Fields(None, target.name, texts)


def _template(inputs: Sequence[Column], instruction: str) -> str:
    """A prompt with a line for each column, and the instruction below."""
    lines = [f"{_heading(column.name)}: {{{{ {_expression(column)} }}}}" for column in inputs]
    return "\n".join([*lines, "", instruction])


def _heading(name: str) -> str:
    plain = one_line(re.sub(r"[{}\[\]%#]", " ", name).replace("_", " "), 60).strip()
    plain = "".join(sign for sign in plain if sign.isprintable())
    return f"{plain[:1].upper()}{plain[1:]}" or "Column"


def _expression(column: Column) -> str:
    """The expression of a placeholder; a missing value becomes an empty text."""
    name = column.name
    if not name.isascii() or not name.isidentifier() or name in (ROW, "self", "super", "loop", "caller"):
        source = _subscript(name)
    else:
        try:
            is_variable = Template(f"{{{{ {name} }}}}", "").variables == {name}
        except ConfigError:  # a word of Jinja's, such as "not"
            is_variable = False
        source = name if is_variable else _subscript(name)
    if len(column.filled) == len(column.values):
        return source
    if all(column.filled):
        return f'{source} | default("", true)'
    return f'{source} if {source} is defined and {source} is not none else ""'  # keeps 0 and False


def _subscript(name: str) -> str:
    quoted = json.dumps(name, ensure_ascii=False)
    for sign in "{}":
        quoted = quoted.replace(sign, f"\\x{ord(sign):02x}")
    return f"{ROW}[{quoted}]"


def _long_inputs(lengths: Sequence[int], *, is_embedded: bool) -> Iterator[str]:
    most = _EMBEDDED_MOST if is_embedded else _LONG
    long = sum(length > most for length in lengths)
    if long:
        effect = "the embedded model may refuse them" if is_embedded else "each call sends one, so look at gpo plan"
        yield f"{long:,} of {len(lengths):,} inputs have more than {most:,} characters: {effect}."


# -- splits -----------------------------------------------------------------------------------------------------------


def _file_split(count: int) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    """The section ``data`` for one file with so many different inputs; sizes; and what is doubtful."""
    if count < 3:
        raise ConfigError(
            "FILE",
            f"has {count} different input{'s' * (count > 1)}, and train, val and test need one each",
            f"add rows; start with {_FEW_ROWS} or more",
        )
    if count >= _MANY_ROWS:
        return {"split": {"train": _TRAIN, "val": _VAL, "test": _TEST, "seed": 0}}, {}, []
    if count >= _FEW_ROWS:
        return {"split": {"train": 0.2, "val": 0.4, "test": 0.4, "seed": 0}}, {}, []
    train = max(1, count // 5)
    val = (count - train) // 2
    test = count - train - val
    low, high = wilson(ceil(test / 2), test)
    few = (
        f"There are only {count} different inputs. With {test} in test, a score of about 50 % can mean "
        f"{100 * low:.0f} to {100 * high:.0f} %. Add rows if you can."
    )
    return {"split": {"train": train, "val": val, "test": test, "seed": 0}}, {}, [few]


_TRAIN_NAMES = ("train", "training")
_VAL_NAMES = ("validation", "valid", "val", "dev", "development", "eval")
_TEST_NAMES = ("test", "testing")


def _hub_splits(
    parts: Mapping[str, Mapping[int, Example]], answer: Answer
) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    """The section ``data`` for a data set with splits; sizes; and what is doubtful."""

    def first(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in parts), None)

    train, val, test = first(_TRAIN_NAMES) or next(iter(parts)), first(_VAL_NAMES), first(_TEST_NAMES)
    others = [name for name in (val, test) if name and name != train]
    used: dict[str, tuple[str, int, int]]
    if len(others) == 2:
        used = {"train": (train, 0, 100), "val": (others[0], 0, 100), "test": (others[1], 0, 100)}
    elif others:
        used = {"train": (train, 0, 50), "val": (train, 50, 100), "test": (others[0], 0, 100)}
    else:
        used = {"train": (train, 0, 20), "val": (train, 20, 60), "test": (train, 60, 100)}
    doubts, examples = [], {}
    for split, (name, begin, end) in used.items():
        whole = [*parts[name].values()]
        examples[split] = whole[round(len(whole) * begin / 100) : round(len(whole) * end / 100)]
    missing = {
        split: {label.casefold() for label in answer.labels} - {one.target.strip().casefold() for one in some}
        for split, some in examples.items()
    }
    if without := [split for split, labels in missing.items() if labels]:
        doubts.append(
            f"Some labels are missing in {' and '.join(without)}, such as {named(min(missing[without[0]]))}. If the "
            "data set is sorted by target, save it as one file, which the program divides at random."
        )
    if len(others) < 2:
        doubts.insert(
            0, f"The splits are {', '.join(map(named, parts))}: some of the three are made of {named(train)}."
        )
    unused = [name for name in parts if name not in {name for name, _, _ in used.values()}]
    if unused:
        doubts.append(f"These splits are not used: {', '.join(map(named, unused))}.")
    most = {"val_size": len(examples["val"]), "test_size": len(examples["test"])}
    limits = {"val_size": _VAL, "test_size": _TEST}
    sizes = {name: limits[name] for name, size in most.items() if size > limits[name]}
    return {split: _slice(*part) for split, part in used.items()}, sizes, doubts


def _slice(name: str, begin: int, end: int) -> str:
    bounds = f"{begin}%" if begin else "", f"{end}%" if end < 100 else ""
    return f"{name}[{':'.join(bounds)}]" if any(bounds) else name


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
