"""A folder at a local path or fsspec URL, whose files are always replaced as a whole."""

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

RETRY_S = 60.0
"""How long a write to an unreachable object store is retried, in seconds, so that a short outage does not end a run."""
REPLY_TIMEOUT_S = 30.0
"""The timeout of each request to an object store, in seconds."""


@dataclass(frozen=True)
class Folder:
    """A local folder or one in an object store. Pickles.

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
    def at(cls, location: str) -> Folder:
        """The folder that a user named. A local path becomes absolute, as actors run in other working directories."""
        return cls(location if "://" in location else str(Path(location).expanduser().resolve()))

    @property
    def local(self) -> Path | None:
        """The folder's path, if it is local."""
        files, root = self._location
        return Path(root) if isinstance(files, LocalFileSystem) else None

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.url.rstrip('/')}/{name}")

    def path(self, name: str) -> str:
        """The file's full path or URL, for messages."""
        local = self.local
        return str(local / name) if local else f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """The file's content, or ``None`` if there is no such file.

        Raises:
            OSError: the file exists and cannot be read.
        """
        files, root = self._location
        try:
            content: bytes = _call(files, files.cat_file, f"{root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes, *, retry_s: float | None = None) -> None:
        """Replace the file. A reader sees the old content or the new, never a part.

        Blocks until the content is on disk or in the object store, and retries as ``with_retries`` does.

        Raises:
            OSError: it could not be written, and the old content remains.
        """
        files, root = self._location
        if isinstance(files, LocalFileSystem):
            path = Path(root) / name
            with _written_beside(path, content) as partial:
                partial.replace(path)
        else:  # an object becomes visible once it is complete
            self.with_retries(lambda: _call(files, files.pipe_file, f"{root}/{name}", content), retry_s)

    def create(self, name: str, content: bytes) -> bool:
        """Write the file unless it exists; whether it was written.

        If several processes create the same file at the same time, one of them succeeds on local file systems and in
        object stores with conditional writes (S3, GCS, Azure, MinIO). In other stores, several may succeed.

        Raises:
            OSError: it could not be written, or it was and the reply was lost.
        """
        files, root = self._location
        try:
            if isinstance(files, LocalFileSystem):
                _create(Path(root) / name, content)
            else:
                _call(files, files.pipe_file, f"{root}/{name}", content, mode="create")
        except FileExistsError:
            return False
        return True

    def copy(self, name: str, to: str) -> None:
        """Copy a file to another name, replacing that file; does nothing if there is no such file.

        Raises:
            OSError: it could not be copied.
        """
        files, root = self._location
        with suppress(FileNotFoundError):
            if isinstance(files, LocalFileSystem):
                _copy(Path(root) / name, Path(root) / to)
            else:
                self.with_retries(lambda: _call(files, files.cp_file, f"{root}/{name}", f"{root}/{to}"))

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Raises:
            OSError: it could not be removed.
        """
        files, root = self._location
        with suppress(FileNotFoundError):
            _call(files, files.rm_file, f"{root}/{name}")

    def names(self) -> list[str]:
        """The names of the files and folders directly in this one, sorted; empty if this folder does not exist.

        Raises:
            OSError: the folder cannot be read.
        """
        files, root = self._location
        try:
            files.invalidate_cache(root)  # other processes write here, too
            return sorted(Path(path).name for path in _call(files, files.ls, root, detail=False))
        except FileNotFoundError:
            return []

    def with_retries(self, action: Callable[[], _T], retry_s: float | None = None) -> _T:
        """Call a function, and repeat it while an object store cannot be reached.

        Args:
            retry_s: for how long, in seconds; ``RETRY_S`` by default.

        Raises:
            OSError: the last failure; at once if the folder is local, does not exist or may not be accessed.
        """
        files, _ = self._location
        if isinstance(files, LocalFileSystem):
            return action()
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_delay(RETRY_S if retry_s is None else retry_s),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError))
            ),
            reraise=True,
        )
        return retrying(action)


def _call(files: Any, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a file system. Any error of its library is raised as an ``OSError``, since callers cannot know its types."""
    if isinstance(files, AsyncFileSystem):
        # Without a timeout, libraries repeat an unanswered request for minutes.
        options["timeout"] = REPLY_TIMEOUT_S
    try:
        return action(*arguments, **options)
    except FSTimeoutError:
        raise TimeoutError(f"no answer within {REPLY_TIMEOUT_S:g} s") from None
    except OSError:
        raise
    except Exception as error:
        if isinstance(files, LocalFileSystem):
            raise
        raise OSError(f"{type(error).__name__}: {error}") from None


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """A temporary file in the folder of ``path`` with the content, flushed to disk."""
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
    with _written_beside(path, content) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links; other processes may see the file while it is still empty
            with path.open("xb") as file:
                file.write(content)


def _copy(path: Path, to: Path) -> None:
    with _beside(to) as partial:
        try:
            os.link(path, partial)  # safe, because files are never changed in place
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(path, partial)
        partial.replace(to)
