"""Statistics of the simulated endpoint's access log: traffic, and calls that were repeated after a kill."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.simulated.service import AccessRecord

CHAT = "/v1/chat/completions"
_OK, _TOO_MANY = 200, 429
UNWRITTEN_S = 0.5
"""A process that is killed may lose the replies of this last moment: the completion cache writes those of a tenth of a
second at once, and takes longer on a busy machine."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The chat requests of a command, without embeddings and model lists.

    Attributes:
        calls: requests answered with a completion.
        task_calls: calls to the task model.
        duplicates: task calls whose content was answered before.
        first_s, last_s: times of the first request and of the last reply, on the system's monotonic clock.
        refused: requests answered with 429; ``refused_late`` counts those in the second half of the time.
        failed: requests with any other reply.
        requests_late: requests in the second half of the time.
        in_flight_s: total time that the calls spent at the endpoint.
    """

    calls: int
    task_calls: int
    duplicates: int
    first_s: float
    last_s: float
    refused: int
    refused_late: int
    failed: int
    requests_late: int
    in_flight_s: float

    @property
    def duration_s(self) -> float:
        """From the first request to the last reply."""
        return self.last_s - self.first_s

    @property
    def requests(self) -> int:
        """All requests, whatever their reply."""
        return self.calls + self.refused + self.failed

    def physical_s(self, latency_s: float, limit: int) -> float:
        """The shortest time in which the endpoint can serve these calls."""
        return self.calls * latency_s / limit

    def busy(self, latency_s: float, limit: int) -> float:
        """Share of the endpoint's capacity in use from the first to the last call; 0 without a call."""
        return self.physical_s(latency_s, limit) / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def refused_share(self) -> float:
        """Share of all requests that were answered with 429."""
        return self.refused / self.requests if self.requests else 0.0

    @property
    def refused_late_share(self) -> float:
        """The same for requests in the second half of the time."""
        return self.refused_late / self.requests_late if self.requests_late else 0.0


def read_log(path: Path) -> list[AccessRecord]:
    """Read the records of a log, in order.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        return [AccessRecord(**json.loads(line)) for line in file]


class AnsweredCalls:
    """Counts the answered chat requests in a growing log."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._count = path, 0, 0

    def __call__(self) -> int:
        """The current count; 0 if there is no log yet."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # incomplete
                    break
                self._offset += len(line)
                record = json.loads(line)
                self._count += record["path"] == CHAT and record["status"] == _OK
        return self._count


def traffic(records: Sequence[AccessRecord], task_model: str = "task-model") -> Traffic | None:
    """Statistics of the chat requests; ``None`` if there are none."""
    chats = [record for record in records if record.path == CHAT]
    if not chats:
        return None
    first_s, last_s = min(chat.started_s for chat in chats), max(chat.finished_s for chat in chats)
    late = [chat for chat in chats if chat.started_s >= (first_s + last_s) / 2]
    answered = [chat for chat in chats if chat.status == _OK]
    contents = Counter(chat.content for chat in answered if chat.model == task_model)
    refused = sum(chat.status == _TOO_MANY for chat in chats)
    return Traffic(
        calls=len(answered),
        task_calls=contents.total(),
        duplicates=contents.total() - len(contents),
        first_s=first_s,
        last_s=last_s,
        refused=refused,
        refused_late=sum(chat.status == _TOO_MANY for chat in late),
        failed=len(chats) - len(answered) - refused,
        requests_late=len(late),
        in_flight_s=sum(chat.finished_s - chat.started_s for chat in answered),
    )


@dataclass(frozen=True, slots=True)
class Repeats:
    """Calls of a model whose content was answered before.

    Attributes:
        in_flight: the earlier call was in flight when a process ended.
        unwritten: the earlier answer came at most ``UNWRITTEN_S`` before a process ended.
        beyond: all others; nothing explains these.
        cut: calls whose caller disconnected before the answer, repeated or not.
        latest_s: longest time between an unwritten answer and the end of the process.
    """

    in_flight: int
    unwritten: int
    beyond: int
    cut: int
    latest_s: float = 0.0


def repeats(records: Sequence[AccessRecord], ends: Sequence[tuple[float, float]], model: str) -> Repeats:
    """Count the repeated calls of a model.

    Args:
        records: the endpoint's log.
        ends: for each ended process that makes calls, two times between which it ended, on the log's clock.
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
