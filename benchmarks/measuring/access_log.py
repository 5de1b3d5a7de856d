"""What the simulated endpoint's access log tells about whoever called it."""

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


@dataclass(frozen=True, slots=True)
class Traffic:
    """The chat requests of a command; what the endpoint embedded or listed does not count.

    Attributes:
        calls: requests answered with a completion.
        task_calls: those of the task model.
        duplicates: task calls whose content was answered before: the number of contents less than that of calls.
        first_s, last_s: when the first request came and the last reply went, on the system's monotonic clock.
        refused: requests answered 429, and ``refused_late`` those of them in the second half of the time.
        failed: requests with any other reply.
        requests_late: requests in the second half of the time.
        in_flight_s: time that the calls spent at the endpoint, together.
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
        """All of them, however they were answered."""
        return self.calls + self.refused + self.failed

    def physical_s(self, latency_s: float, limit: int) -> float:
        """The time that so many calls take at least."""
        return self.calls * latency_s / limit

    def busy(self, latency_s: float, limit: int) -> float:
        """Share of the endpoint's places that calls took, from the first to the last; 0 without a call."""
        return self.physical_s(latency_s, limit) / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def refused_share(self) -> float:
        """Share of all requests that were answered 429."""
        return self.refused / self.requests if self.requests else 0.0

    @property
    def refused_late_share(self) -> float:
        """Likewise of the requests that came in the second half of the time."""
        return self.refused_late / self.requests_late if self.requests_late else 0.0


def read_log(path: Path) -> list[AccessRecord]:
    """The records of a log, in its order.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        return [AccessRecord(**json.loads(line)) for line in file]


class AnsweredCalls:
    """Counts the chat requests in a log that were answered with a completion, as it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._count = path, 0, 0

    def __call__(self) -> int:
        """How many there are by now; 0 where there is no log yet."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # not written to its end yet
                    break
                self._offset += len(line)
                record = json.loads(line)
                self._count += record["path"] == CHAT and record["status"] == _OK
        return self._count


def traffic(records: Sequence[AccessRecord], task_model: str = "task-model") -> Traffic | None:
    """The chat requests among the records; ``None`` where there are none."""
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
