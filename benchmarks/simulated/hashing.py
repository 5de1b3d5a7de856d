"""Pseudo-random numbers that depend on their arguments alone: the same in every process and on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

_T = TypeVar("_T")


def integer(*parts: object) -> int:
    """An integer in [0, 2⁶⁴) computed from the ``str`` of each part."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def uniform(*parts: object) -> float:
    """A number in [0, 1), uniform over different parts."""
    # A float holds 53 bits exactly; with more, the largest value would round up to 1.
    return (integer(*parts) >> 11) / 2**53


def pick(options: Sequence[_T], *parts: object) -> _T:
    """One of the options, each equally likely over different parts."""
    return options[integer(*parts) % len(options)]
