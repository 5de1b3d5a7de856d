from __future__ import annotations

from collections.abc import Sequence

import pytest

from gpo.data.example import Example
from gpo.data.splits import LoadedTask, published
from gpo.data.task import Split
from gpo.errors import ConfigError


def examples(letters: str) -> tuple[Example, ...]:
    return tuple(Example(letter, (letter,)) for letter in letters)


def inputs(shown: Sequence[Example]) -> str:
    return "".join(example.input for example in shown)


SPLITS = {Split.TRAIN: examples("abcdefghij"), Split.VAL: examples("v"), Split.TEST: examples("t")}


def test_few_shot_examples_of_the_data_are_taken_in_order() -> None:
    assert LoadedTask(SPLITS, examples("xyz")).with_shots(2, where="tasks[0]") == (SPLITS, examples("xy"))


def test_other_few_shot_examples_are_always_the_same_ones_from_train() -> None:
    splits, shown = LoadedTask(SPLITS).with_shots(4, where="tasks[0]")
    assert len(shown) == 4
    assert set(inputs(shown)) | set(inputs(splits[Split.TRAIN])) == set("abcdefghij")
    assert len(splits[Split.TRAIN]) == 6
    assert (splits[Split.VAL], splits[Split.TEST]) == (SPLITS[Split.VAL], SPLITS[Split.TEST])
    assert LoadedTask(SPLITS).with_shots(4, where="tasks[0]") == (splits, shown)
    assert inputs(shown) != "abcd"


def test_repeats_of_few_shot_examples_are_removed_from_train() -> None:
    loaded = LoadedTask({**SPLITS, Split.TRAIN: (*examples("aaaaaaaaab"), Example(" A ", ("a",)))})
    splits, shown = loaded.with_shots(1, where="tasks[0]")
    assert inputs(shown) == "a"
    assert inputs(splits[Split.TRAIN]) == "b"


@pytest.mark.parametrize(
    ("few_shot", "shots", "problem"),
    [
        ((), 1, "the data has 0 few-shot examples"),
        (examples("xyz"), 4, "4 is too many: the data has 3"),
        (None, 10, "must keep one"),
        (None, 11, "must keep one"),
    ],
)
def test_too_many_few_shot_examples_are_refused(few_shot: tuple[Example, ...] | None, shots: int, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        LoadedTask(SPLITS, few_shot).with_shots(shots, where="tasks[0]")
    assert caught.value.field == "tasks[0].shots"


def test_few_shot_examples_of_a_published_data_set_are_not_held_out() -> None:
    overlapping = {Split.TRAIN: examples("abv"), Split.VAL: examples("vt"), Split.TEST: examples("t")}
    loaded = published(overlapping, examples("atvx"), where="data")
    assert inputs(loaded.few_shot or ()) == "ax"
    assert [inputs(loaded.splits[split]) for split in Split] == ["ab", "v", "t"]
    assert published(overlapping, None, where="data").few_shot is None
