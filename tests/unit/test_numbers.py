from __future__ import annotations

from pathlib import Path

import pytest

from actors.metrics.numbers import Numbers, names_of, read


def test_more_numbers_than_the_file_had_room_for(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "a.count")
    first = numbers.place("name 0")
    kept = numbers.values
    places = [numbers.place(f"name {number}") for number in range(1, 20_000)]
    for place in places:
        numbers.values[place] = float(place)
    assert len(numbers.values) > len(kept)
    kept[first] += 0.5  # whoever keeps what there was at first still counts
    assert read(tmp_path / "a.count") == {f"name {place}": float(place) or 0.5 for place in (first, *places)}


def test_a_name_that_was_being_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.count"
    numbers = Numbers(path)
    numbers.values[numbers.place('["gpo_steps_total", "ä"]')] = 2.0
    with names_of(path).open("ab") as names:
        names.write('["gpo_ä'.encode()[:-1])
    assert read(path) == {'["gpo_steps_total", "ä"]': 2.0}


def test_a_file_belongs_to_one_process(tmp_path: Path) -> None:
    Numbers(tmp_path / "a.count")
    with pytest.raises(FileExistsError):
        Numbers(tmp_path / "a.count")


def test_room_that_is_not_used_takes_no_place(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "a.count")
    numbers.values[numbers.place("a")] = 1.0
    assert (tmp_path / "a.count").stat().st_blocks * 512 <= 8192
    assert read(tmp_path / "a.count") == {"a": 1.0}
