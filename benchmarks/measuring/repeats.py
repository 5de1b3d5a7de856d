"""What the endpoint answered twice, and whether the first answer could have been kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring.access_log import CHAT
from benchmarks.simulated.service import AccessRecord

UNWRITTEN_S = 0.25
"""Replies that came so shortly before a process was killed may be lost with it: the completion cache writes those of a
tenth of a second at once, and a busy machine takes its time."""

_OK = 200


@dataclass(frozen=True, slots=True)
class Repeats:
    """Calls of a model with a content that was answered before.

    Attributes:
        in_flight: the answer before was under way while a process ended.
        unwritten: it came at most ``UNWRITTEN_S`` before that.
        beyond: neither; nothing explains these.
        cut: calls whose caller was gone before the answer, whether or not they were made again.
    """

    in_flight: int
    unwritten: int
    beyond: int
    cut: int


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
    in_flight = unwritten = beyond = 0
    for same in answered.values():
        for lost in same[:-1]:
            if any(lost.started_s <= to_s and from_s <= lost.finished_s for from_s, to_s in ends):
                in_flight += 1
            elif any(0 <= from_s - lost.finished_s <= UNWRITTEN_S for from_s, _ in ends):
                unwritten += 1
            else:
                beyond += 1
    return Repeats(in_flight, unwritten, beyond, sum(chat.status not in (_OK, 429) for chat in chats))
