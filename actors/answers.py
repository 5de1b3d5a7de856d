"""The answers of a search: kept in files beside its checkpoint, so that people can see what the model answered."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from actors.folder import Folder
from actors.lease import Fence
from actors.search import SearchKey
from gpo.data.task import Split
from gpo.errors import StorageError
from gpo.evaluation.evaluator import Answered, Answerer, Evaluation, Evaluator
from gpo.evaluation.program_calls import CallRecord
from gpo.prompt import Prompt
from gpo.text import abridged

log = logging.getLogger(__name__)

_MOST_CHARACTERS = 20_000
"""Of one answer; a longer one loses its middle."""
_SUFFIX = ".jsonl.gz"
_NOT_CHOSEN = ".not-chosen.gz"
_BLOCK = 200_000
"""Characters that are compressed together, at least. A reader decompresses only the blocks with wanted prompts."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What the task model answered to one example with one prompt.

    Attributes:
        prompt: ID of the prompt.
        index: position of the example in its split, from 0.
        answer: the raw reply.
        value: the grade in [0, 1]; ``None`` if unscored.
        reason: why the grade is below 1; may be empty.
        problem: why there is no grade; else empty.
        flaw: ``cut``, ``empty`` or ``unreadable``; else empty.
        tokens: sent and generated.
        seconds: until the reply; 0 for a cached one.
        is_cached: whether all replies came from the cache.
        calls: the model calls of a program, if they are recorded.
        read: what the scorer read from the reply, such as a label; empty if nothing, or for other kinds of answers.
    """

    prompt: str
    split: Split
    index: int
    answer: str
    value: float | None
    reason: str = ""
    problem: str = ""
    flaw: str = ""
    tokens: int = 0
    seconds: float = 0.0
    is_cached: bool = False
    calls: tuple[CallRecord, ...] = ()
    read: str = ""


class RecordingEvaluator:
    """An evaluator that hands all answers to a log, and returns evaluations without them."""

    def __init__(self, evaluator: Any, answers: AnswerLog) -> None:
        self._evaluator: Evaluator = evaluator
        self._answerer: Answerer = evaluator
        self._answers = answers

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        """See ``gpo.evaluation.evaluator.Evaluator``."""
        evaluations = await self._evaluator.evaluate(prompts, split, indices)
        for prompt, evaluation in zip(prompts, evaluations, strict=True):
            self._answers.add(prompt, split, indices, evaluation.answers)
        return [replace(evaluation, answers=()) for evaluation in evaluations]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        """See ``gpo.evaluation.evaluator.Answerer``; answers to ``train`` are not recorded."""
        return await self._answerer.answer(prompt, split, indices)


class AnswerLog:
    """The answers of one search. Those of chosen prompts are written, all others are kept until the search ends.

    Each write makes a new file, which a repeated step replaces: after a crash, the files fit the checkpoint. Answers of
    prompts that are not chosen go to a second file, from which ``restore`` takes them: one of these prompts may be
    chosen by a later attempt.

    Args:
        folder: that of the checkpoints.
        writes_all: whether the answers of all prompts are written.
        max_bytes: bound on all files of the search, compressed.
        fence: stops a process whose run another process has taken over.
    """

    def __init__(
        self, folder: Folder, key: SearchKey, *, writes_all: bool, max_bytes: int, fence: Fence | None = None
    ) -> None:
        self._folder, self._writes_all, self._fence = folder / name_of(key), writes_all, fence
        self._left = max_bytes - _size(self._folder)  # what earlier attempts have written counts, too
        self._new: dict[str, list[str]] = {}  # ID of a prompt → lines of a file
        self._num_saved: Counter[str] = Counter()  # of each prompt in ``_new``, in the second files
        self._key = key

    def add(self, prompt: Prompt, split: Split, indices: Sequence[int] | None, answers: Sequence[Answered]) -> None:
        """Keep answers until they are written."""
        positions = range(len(answers)) if indices is None else indices
        self._new.setdefault(prompt.id, []).extend(
            _line(prompt, split, index, answer) for index, answer in zip(positions, answers, strict=False)
        )

    async def write(self, name: str, chosen: Iterable[Prompt]) -> None:
        """Write the new answers of chosen prompts. A full disk ends the recording, not the search.

        Args:
            name: of the file; writing it again replaces it.
        """
        ids = list(self._new) if self._writes_all else list(dict.fromkeys(prompt.id for prompt in chosen))
        chosen_lines = {prompt: lines for prompt in ids if (lines := self._new.pop(prompt, None))}
        others = {prompt: kept[self._num_saved[prompt] :] for prompt, kept in self._new.items()}
        self._num_saved = Counter({prompt: len(kept) for prompt, kept in self._new.items()})
        await self._write(f"{name}{_SUFFIX}", chosen_lines)
        await self._write(f"{name}{_NOT_CHOSEN}", others)

    async def restore(self) -> None:
        """Take the answers of prompts that an earlier attempt has not chosen."""
        await asyncio.to_thread(self._restore)

    async def end(self) -> None:
        """Remove the answers of prompts that were not chosen: no prompt will be."""
        await asyncio.to_thread(self._remove)

    async def _write(self, name: str, lines: Mapping[str, Sequence[str]]) -> None:
        if not any(lines.values()) or self._left <= 0:
            return
        content = await asyncio.to_thread(_encoded, lines)
        self._left -= len(content)
        if self._left <= 0:
            log.warning("record.max_bytes is reached: no more answers of %s are recorded", self._key)
            return
        try:
            if self._fence is not None:
                await asyncio.to_thread(self._folder.with_retries, self._fence.check)
            await asyncio.to_thread(self._folder.write, name, content)
        except (OSError, ImportError, ValueError) as error:
            self._left = 0
            log.warning("no more answers of %s are recorded: %s", self._key, error)

    def _restore(self) -> None:
        try:
            kept = list(_rows(self._folder, _NOT_CHOSEN, None))
            prompts = {row.prompt for row, _ in kept}
            written = {(row.prompt, row.split, row.index) for row, _ in _rows(self._folder, _SUFFIX, prompts)}
        except OSError as error:
            log.warning("earlier answers of %s cannot be read: %s", self._key, error)
            return
        for row, line in kept:
            if (row.prompt, row.split, row.index) not in written:
                self._new.setdefault(row.prompt, []).append(line)
        self._num_saved = Counter({prompt: len(rows) for prompt, rows in self._new.items()})

    def _remove(self) -> None:
        try:
            for name in self._folder.names():
                if name.endswith(_NOT_CHOSEN):
                    self._folder.remove(name)
        except (OSError, ImportError, ValueError) as error:
            log.warning("files in %s cannot be removed: %s", self._folder.url, error)


def _size(folder: Folder) -> int:
    """The bytes of the files in a local folder; those in an object store are not counted."""
    local = folder.local
    return sum(path.stat().st_size for path in local.glob("*.gz")) if local is not None else 0


def name_of(key: SearchKey) -> str:
    """The folder of a search's answers, beside its checkpoint."""
    return f"{key.task}/seed-{key.seed}.answers"


def read_answers(folder: Folder, key: SearchKey, prompts: Collection[str] | None = None) -> Iterator[RecordedAnswer]:
    """The recorded answers of a search, oldest first; none if nothing was recorded. Damaged files are left out.

    Args:
        folder: that of the checkpoints.
        prompts: IDs of the prompts whose answers are wanted; ``None`` for all.

    Raises:
        StorageError: the folder cannot be read.
    """
    answers = folder / name_of(key)
    try:
        yield from (row for row, _ in _rows(answers, _SUFFIX, prompts))
    except OSError as error:
        raise StorageError(f"{answers.url} cannot be read: {error}") from None


def recorded_prompts(folder: Folder, key: SearchKey) -> dict[str, int]:
    """ID of each prompt with recorded answers → their number. Reads the beginning of each file alone.

    Args:
        folder: that of the checkpoints.

    Raises:
        StorageError: the folder cannot be read.
    """
    answers, found = folder / name_of(key), Counter[str]()
    try:
        for _, _, blocks in _files(answers, _SUFFIX):
            for _, numbers in blocks:
                found.update(numbers)
    except OSError as error:
        raise StorageError(f"{answers.url} cannot be read: {error}") from None
    return dict(found)


# A file is a sequence of gzip members, which together are JSON Lines. The first one is a line that says for each other
# member, which is a block of answers, how many bytes it has and how many answers of which prompts.
_Blocks = Sequence[tuple[int, Mapping[str, int]]]


def _files(folder: Folder, suffix: str) -> Iterator[tuple[str, bytes, _Blocks]]:
    """Name of each file, its blocks, and what they are; files without a readable beginning are left out."""
    for name in folder.names():
        if not name.endswith(suffix):
            continue
        try:
            first = zlib.decompressobj(wbits=31)
            head = json.loads(first.decompress(folder.read(name) or b""))
            yield name, first.unused_data, [(int(size), dict(numbers)) for size, numbers in head["blocks"]]
        except (OSError, EOFError, zlib.error, ValueError, TypeError, LookupError) as error:
            _leave_out(folder, name, error)


def _rows(folder: Folder, suffix: str, prompts: Collection[str] | None) -> Iterator[tuple[RecordedAnswer, str]]:
    """Each answer, and its line."""
    for name, content, blocks in _files(folder, suffix):
        rows: list[tuple[RecordedAnswer, str]] = []
        end = 0
        try:
            for size, numbers in blocks:
                begin, end = end, end + size
                if prompts is not None and numbers.keys().isdisjoint(prompts):
                    continue
                lines = gzip.decompress(content[begin:end]).decode().splitlines()
                if len(lines) != sum(numbers.values()):
                    raise ValueError("answers are missing")
                rows += [(_read(line), line) for line in lines if prompts is None or _names_one(line, prompts)]
        except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError) as error:
            _leave_out(folder, name, error)
            continue
        yield from rows


def _leave_out(folder: Folder, name: str, error: Exception) -> None:
    log.warning("%s is damaged, and left out: %s", folder.path(name), error)


def _read(line: str) -> RecordedAnswer:
    known = json.loads(line)
    calls = tuple(CallRecord(**{**call, "sent": tuple(map(tuple, call["sent"]))}) for call in known.pop("calls", ()))
    return RecordedAnswer(**{**known, "split": Split(known["split"]), "calls": calls})


def _names_one(line: str, prompts: Collection[str]) -> bool:
    """Whether a line is about one of the prompts: a quick look, since parsing all lines takes seconds."""
    return any(prompt in line[:60] for prompt in prompts)


def _line(prompt: Prompt, split: Split, index: int, answer: Answered) -> str:
    """The line of a ``RecordedAnswer``: made at once, since it takes less time and memory than an object of its own."""
    usage, judge, flaws = answer.spending.task, answer.spending.judge, answer.flaws
    if judge.requests or judge.cached or judge.failures:
        usage += judge
    values: dict[str, Any] = {
        "prompt": prompt.id,
        "split": split,
        "index": index,
        "answer": _written(abridged(answer.text, _MOST_CHARACTERS)),
        "value": answer.value,
    }
    # Fields with their defaults are left out.
    if answer.reason:
        values["reason"] = _written(answer.reason)
    if answer.problem:
        values["problem"] = _written(answer.problem)
    if flaws.cut or flaws.empty or flaws.unreadable:
        values["flaw"] = "cut" if flaws.cut else "empty" if flaws.empty else "unreadable"
    if tokens := usage.prompt_tokens + usage.completion_tokens + usage.cached_tokens:
        values["tokens"] = tokens
    if seconds := round(answer.seconds, 3):
        values["seconds"] = seconds
    if usage.cached > 0 and usage.requests == 0:
        values["is_cached"] = True
    if answer.calls:
        values["calls"] = [asdict(call) for call in answer.calls]
    if answer.read:
        values["read"] = _written(answer.read)
    return json.dumps(values)


def _written(text: str) -> str:
    """The text without half characters, which no file and no page can hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _encoded(lines_of: Mapping[str, Sequence[str]]) -> bytes:
    """A file with these lines; ``lines_of`` is ID of a prompt → lines."""
    blocks: list[tuple[bytes, Counter[str]]] = []
    block: list[str] = []
    numbers, length = Counter[str](), 0

    def end_block() -> None:
        nonlocal block, numbers, length
        blocks.append((_compressed("\n".join((*block, ""))), numbers))
        block, numbers, length = [], Counter(), 0

    for prompt, lines in lines_of.items():
        for line in lines:
            block.append(line)
            numbers[prompt] += 1
            length += len(line) + 1
            if length >= _BLOCK:
                end_block()
    if block:
        end_block()
    head = {"blocks": [[len(compressed), numbers] for compressed, numbers in blocks]}
    return b"".join((_compressed(f"{json.dumps(head)}\n"), *(compressed for compressed, _ in blocks)))


def _compressed(text: str) -> bytes:
    return gzip.compress(text.encode(errors="replace"), compresslevel=2, mtime=0)
