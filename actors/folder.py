"""A folder behind an fsspec URL, whose files are only ever replaced as a whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


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
            content: bytes = files.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replace the file; a reader sees the old content or the new, never a part.

        Raises:
            OSError: it could not be written; the old content still stands.
        """
        files, root = self._location
        if isinstance(files, LocalFileSystem):
            _replace(Path(root) / name, content)
        else:
            files.pipe_file(f"{root}/{name}", content)  # an object store shows an object once it is complete

    def names(self) -> list[str]:
        """The names of what stands directly in the folder, sorted; empty where there is no folder."""
        files, root = self._location
        try:
            return sorted(Path(path).name for path in files.ls(root, detail=False))
        except FileNotFoundError:
            return []


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
