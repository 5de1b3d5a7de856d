"""Random-looking numbers that depend on their arguments alone: equal in every process and on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

_T = TypeVar("_T")


def integer(*parts: object) -> int:
    """An integer in [0, 2⁶⁴) that depends on the parts, through their ``str``, and on nothing else."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def uniform(*parts: object) -> float:
    """A number in [0, 1), uniform over different parts."""
    # 53 bits are what a float holds exactly: with more, the largest would round up to 1.
    return (integer(*parts) >> 11) / 2**53


def pick(options: Sequence[_T], *parts: object) -> _T:
    """One of the options, each equally likely over different parts."""
    return options[integer(*parts) % len(options)]
