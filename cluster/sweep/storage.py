"""The storage of a study: a journal in a file or on a Redis server, or a database that Optuna supports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalRedisBackend
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from actors.folder import Folder
from cluster.config.sweep import JournalStorageConfig, StorageConfig, UrlStorageConfig
from gpo.errors import ConfigError, StorageError
from gpo.text import first_line

_JOURNAL = "study.journal"
_REDIS = ("redis://", "rediss://", "unix://")
_PSYCOPG = "postgresql+psycopg://"


def open_storage(config: StorageConfig, folder: Folder) -> BaseStorage:
    """The storage; connects to it once to check it.

    Args:
        folder: of the sweep.

    Raises:
        ConfigError: it cannot be reached, or a package is missing.
    """
    if isinstance(config, JournalStorageConfig):
        return _journal(_journal_path(config, folder))
    url = _url(config)
    where = f"sweep.storage.{'url_env' if config.url_env else 'url'}"
    try:
        with storage_errors():
            if url.startswith(_REDIS):
                _require("redis", "redis", where)
                # Without a prefix, since optuna-dashboard uses none; a journal holds many studies.
                return JournalStorage(JournalRedisBackend(url))
            if url.startswith(_PSYCOPG):
                _require("psycopg", "psycopg[binary]", where)
            return _database(url)
    except RuntimeError as error:  # tables of another release of Optuna
        raise ConfigError(
            where,
            first_line(error),
            "upgrade them with 'optuna storage upgrade', or use another database",
        ) from None
    except (StorageError, ImportError, ValueError, sqlalchemy.exc.ArgumentError) as error:
        reason = type(error.__cause__ or error).__name__ if config.url_env else f"{error.__cause__ or error}"
        raise ConfigError(
            where,
            f"the study's storage cannot be used ({first_line(reason)})",
            "start the server, correct the URL, or install the database's package",
        ) from None


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise a storage library's errors as ``StorageError``; also a decorator.

    Raises:
        StorageError: the storage cannot be reached.
    """
    unreachable: list[type[Exception]] = [StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError]
    if find_spec("redis") is not None:
        from redis.exceptions import RedisError

        unreachable.append(RedisError)
    try:
        yield
    except tuple(unreachable) as error:
        raise StorageError(f"the study's storage cannot be used: {type(error).__name__}") from error


def storage_name(config: StorageConfig, folder: Folder) -> str:
    """The storage as ``optuna-dashboard`` names it; of a URL from an environment variable, the variable's name."""
    if isinstance(config, JournalStorageConfig):
        return str(_journal_path(config, folder))
    return f"${config.url_env}" if config.url_env else _url(config)


@retry(
    retry=retry_if_exception_type((IntegrityError, OperationalError, ProgrammingError)),
    stop=stop_after_attempt(5),
    wait=wait_random(0.2, 1.0),
    reraise=True,
)
def _database(url: str) -> BaseStorage:
    """The storage. Where several processes create its tables at once, all but one fail and must retry."""
    return RDBStorage(url)


def _journal_path(config: JournalStorageConfig, folder: Folder) -> Path:
    if config.path is not None:
        return config.path
    local = folder.local
    if local is None:
        raise ConfigError(
            "sweep.storage",
            f"a journal cannot be stored at {folder.url!r}, which is not a local folder",
            "set sweep.storage.path to a file that all processes can reach, or use a database",
        )
    return local / _JOURNAL


def _journal(path: Path) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_MendingLock(path)))
    except (OSError, ValueError) as error:
        raise ConfigError("sweep.storage", f"{str(path)!r} cannot be used ({error})", "name another file") from None


class _MendingLock(JournalFileSymlinkLock):
    """Removes an incomplete last line, left by a process that was killed: the next line would be lost with it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        acquired = super().acquire()
        with self._path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        return acquired


def _url(config: UrlStorageConfig) -> str:
    url = config.url
    if config.url_env is not None:
        url = os.environ.get(config.url_env, "").strip()
        if not url:
            raise ConfigError(
                "sweep.storage.url_env", f"environment variable {config.url_env} is not set", "export it with the URL"
            )
    assert url is not None  # noqa: S101  # the section requires one of the two
    # Without a driver in the URL, use the one in our extras.
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return _PSYCOPG + url.removeprefix(plain)
    return url


def _require(module: str, package: str, where: str) -> None:
    if find_spec(module) is None:
        raise ConfigError(where, f"needs the package {package}", f"install it: pip install '{package}'")
