from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from actors.metrics.book import Book, pages
from actors.metrics.catalogue import STEPS
from actors.metrics.mapped_numbers import MappedNumbers, names_of, read


def test_more_numbers_than_the_file_had_room_for(tmp_path: Path) -> None:
    numbers = MappedNumbers(tmp_path / "a.count")
    first = numbers.place("name 0")
    kept = numbers.values
    places = [numbers.place(f"name {number}") for number in range(1, 5_000)]
    for place in places:
        numbers.values[place] = float(place)
    assert len(numbers.values) > len(kept)
    kept[first] += 0.5  # whoever keeps what there was at first still counts
    assert read(tmp_path / "a.count") == {f"name {place}": float(place) or 0.5 for place in (first, *places)}


def test_a_name_that_was_being_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.count"
    numbers = MappedNumbers(path)
    numbers.values[numbers.place("ä")] = 2.0
    with names_of(path).open("ab") as names:
        names.write("\n1 ä".encode()[:-1])
    assert read(path) == {"ä": 2.0}


@pytest.mark.parametrize("broken", [b'\n1 ["gpo_st', b"\n99999 [", b"\nno place", b"\n1", b"\n\n"])
def test_a_broken_line_takes_no_other_along(broken: bytes, tmp_path: Path) -> None:
    book = Book(tmp_path / "node", "r", "driver")
    (path,) = (tmp_path / "node").glob("*.names")
    with path.open("ab") as names:
        names.write(broken)
    book.count(STEPS, "r", "t", "0").add(3)
    (page,) = pages(tmp_path / "node")
    assert {cell.metric: value for cell, value in page.cells.items()} == {"gpo_actors": 1.0, "gpo_steps_total": 3.0}


def test_a_file_belongs_to_one_process(tmp_path: Path) -> None:
    MappedNumbers(tmp_path / "a.count")
    with pytest.raises(FileExistsError):
        MappedNumbers(tmp_path / "a.count")


def test_there_is_room_for_all_that_may_be_stored(tmp_path: Path) -> None:
    numbers = MappedNumbers(tmp_path / "a.count")
    for number in range(2_000):
        numbers.place(str(number))
    # No hole in it: a store into one would end the process, where the disk is full.
    file = (tmp_path / "a.count").stat()
    assert file.st_blocks * 512 >= file.st_size == len(numbers.values) * 8


def test_where_there_is_no_room_for_more_counting_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = MappedNumbers(tmp_path / "a.count")
    first = numbers.place("first")
    kept, room = numbers.values, len(numbers.values)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(room):
        place = numbers.place(str(number))
        numbers.values[place] = 1.0
    kept[first] += 2.0
    told = read(tmp_path / "a.count")
    assert (told["first"], told["0"]) == (2.0, 1.0)
    assert len(told) == room
    with pytest.raises(OSError, match="space"):
        MappedNumbers(tmp_path / "b.count")
