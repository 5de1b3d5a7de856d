"""A folder behind an fsspec URL, whose files are only ever replaced as a whole."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import tenacity
from fsspec.asyn import AsyncFileSystem
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem

_T = TypeVar("_T")

PATIENCE_S = 60.0
"""How long a store that is out of reach is tried again before what should be written there is given up, in seconds.
A run of hours shall not end with an object store's hiccup."""
ANSWERED_WITHIN_S = 30.0
"""How long a store is waited for, each time, in seconds."""


@dataclass(frozen=True)
class Folder:
    """A local folder or a place in an object store.

    Attributes:
        url: a path, or any URL that fsspec knows (``s3://…``, ``gs://…``, ``memory://…``).
    """

    url: str

    @cached_property
    def _location(self) -> tuple[Any, str]:
        files, root = fsspec.core.url_to_fs(self.url)
        return files, str(root).rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    @classmethod
    def at(cls, place: str) -> Folder:
        """The folder that a user named.

        A local path becomes absolute: actors run in other working directories.
        """
        return cls(place if "://" in place else str(Path(place).expanduser().resolve()))

    @property
    def local(self) -> Path | None:
        """The folder's path, where it is a local one."""
        files, root = self._location
        return Path(root) if isinstance(files, LocalFileSystem) else None

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.url.rstrip('/')}/{name}")

    def path(self, name: str) -> str:
        """The file's full path or URL, as a user would type it."""
        local = self.local
        return str(local / name) if local else f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """The file's content, or ``None`` where there is no such file.

        Raises:
            OSError: it is there and cannot be read.
        """
        files, root = self._location
        try:
            content: bytes = _of(files, files.cat_file, f"{root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes, *, patience_s: float | None = None) -> None:
        """Replace the file; a reader sees the old content or the new, never a part.

        Blocks until the content is safe. See ``patiently`` for a store that is out of reach.

        Raises:
            OSError: it could not be written; the old content still stands.
        """
        files, root = self._location
        if isinstance(files, LocalFileSystem):
            path = Path(root) / name
            with _complete_beside(path, content) as partial:
                partial.replace(path)
        else:  # an object store shows an object once it is complete
            self.patiently(lambda: _of(files, files.pipe_file, f"{root}/{name}", content), patience_s)

    def create(self, name: str, content: bytes) -> bool:
        """Write the file unless there is one; whether it was written.

        Of several who create the same file at the same time, one succeeds: on local file systems, and in object stores
        that know conditional writes (S3, GCS, Azure, MinIO). Others may tell several that they did.

        Raises:
            OSError: it could not be written, or may have been: an answer can be lost.
        """
        files, root = self._location
        try:
            if isinstance(files, LocalFileSystem):
                _create(Path(root) / name, content)
            else:
                _of(files, files.pipe_file, f"{root}/{name}", content, mode="create")
        except FileExistsError:
            return False
        return True

    def copy(self, name: str, to: str) -> None:
        """Replace a file by the present content of another; nothing where there is no such file.

        Raises:
            OSError: it could not be copied.
        """
        files, root = self._location
        with suppress(FileNotFoundError):
            if isinstance(files, LocalFileSystem):
                _copy(Path(root) / name, Path(root) / to)
            else:
                self.patiently(lambda: _of(files, files.cp_file, f"{root}/{name}", f"{root}/{to}"))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OSError: it could not be removed.
        """
        files, root = self._location
        with suppress(FileNotFoundError):
            _of(files, files.rm_file, f"{root}/{name}")

    def names(self) -> list[str]:
        """The names of what stands directly in the folder now, sorted; empty where there is no folder.

        Raises:
            OSError: it cannot be looked into.
        """
        files, root = self._location
        try:
            files.invalidate_cache(root)  # others write here, too
            return sorted(Path(path).name for path in _of(files, files.ls, root, detail=False))
        except FileNotFoundError:
            return []

    def patiently(self, action: Callable[[], _T], patience_s: float | None = None) -> _T:
        """What the action returns; in a store that is not local, it is tried again for so many seconds.

        Args:
            patience_s: ``PATIENCE_S`` where nothing is said.

        Raises:
            OSError: the last one; at once, where there is no such place or no permission.
        """
        files, _ = self._location
        if isinstance(files, LocalFileSystem):
            return action()
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_delay(PATIENCE_S if patience_s is None else patience_s),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError))
            ),
            reraise=True,
        )
        return retrying(action)


def _of(files: Any, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a store answers; all that it raises is an ``OSError``: its library's own, no caller can know."""
    if isinstance(files, AsyncFileSystem):
        # Libraries try again many times a call that nobody answers: minutes, in which no other caller is told.
        options["timeout"] = ANSWERED_WITHIN_S
    try:
        return action(*arguments, **options)
    except FSTimeoutError:
        raise TimeoutError(f"no answer within {ANSWERED_WITHIN_S:g} s") from None
    except OSError:
        raise
    except Exception as error:
        if isinstance(files, LocalFileSystem):
            raise
        raise OSError(f"{type(error).__name__}: {error}") from None


@contextmanager
def _complete_beside(path: Path, content: bytes) -> Iterator[Path]:
    """A file with the content, safe on the disk, beside the one that it is for; gone at the end."""
    with _beside(path) as partial:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _create(path: Path, content: bytes) -> None:
    with _complete_beside(path, content) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links; others may see the file while it is still empty
            with path.open("xb") as file:
                file.write(content)


def _copy(path: Path, to: Path) -> None:
    with _beside(to) as partial:
        try:
            os.link(path, partial)  # what is only ever replaced as a whole can have two names
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(path, partial)
        partial.replace(to)
