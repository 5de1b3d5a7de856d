"""What the endpoint answered twice, and whether the first answer could have been kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring.access_log import CHAT
from benchmarks.simulated.service import AccessRecord

UNWRITTEN_S = 0.5
"""Replies that came so shortly before a process was killed may be lost with it: the completion cache writes those of a
tenth of a second at once, and a busy machine takes its time."""

_OK, _TOO_MANY = 200, 429


@dataclass(frozen=True, slots=True)
class Repeats:
    """Calls of a model with a content that was answered before.

    Attributes:
        in_flight: the answer before was under way while a process ended.
        unwritten: it came at most ``UNWRITTEN_S`` before that.
        beyond: neither; nothing explains these.
        cut: calls whose caller was gone before the answer, whether or not they were made again.
        latest_s: how long before a process ended the unwritten answers came, at most.
    """

    in_flight: int
    unwritten: int
    beyond: int
    cut: int
    latest_s: float = 0.0


def repeats(records: Sequence[AccessRecord], ends: Sequence[tuple[float, float]], model: str) -> Repeats:
    """The repeated calls of a model.

    Args:
        records: of the endpoint.
        ends: when processes that make calls ended: each between two times, on the records' clock.
    """
    chats = [record for record in records if record.path == CHAT and record.model == model]
    answered: dict[str, list[AccessRecord]] = {}
    for chat in sorted(chats, key=lambda chat: chat.finished_s):
        if chat.status == _OK:
            answered.setdefault(chat.content, []).append(chat)
    in_flight = beyond = 0
    unwritten_s: list[float] = []
    for same in answered.values():
        for lost in same[:-1]:
            before_s = [from_s - lost.finished_s for from_s, _ in ends if 0 <= from_s - lost.finished_s <= UNWRITTEN_S]
            if any(lost.started_s <= to_s and from_s <= lost.finished_s for from_s, to_s in ends):
                in_flight += 1
            elif before_s:
                unwritten_s.append(min(before_s))
            else:
                beyond += 1
    cut = sum(chat.status not in (_OK, _TOO_MANY) for chat in chats)
    return Repeats(in_flight, len(unwritten_s), beyond, cut, max(unwritten_s, default=0.0))
