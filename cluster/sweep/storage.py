"""Where a study is kept: a journal in a file or on a Redis server, or a database that Optuna knows."""

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

_JOURNAL = "study.journal"
_REDIS = ("redis://", "rediss://", "unix://")
_PSYCOPG = "postgresql+psycopg://"


def open_storage(config: StorageConfig, folder: Folder) -> BaseStorage:
    """The storage, reached once to see that it can be.

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
        with told_as_storage_error():
            if url.startswith(_REDIS):
                _require("redis", "redis", where)
                # Without a prefix of ours, since optuna-dashboard looks for none; a journal holds many studies.
                return JournalStorage(JournalRedisBackend(url))
            if url.startswith(_PSYCOPG):
                _require("psycopg", "psycopg[binary]", where)
            return _database(url)
    except RuntimeError as error:  # tables of another release of Optuna
        raise ConfigError(
            where,
            str(error).strip().splitlines()[0],
            "upgrade them with 'optuna storage upgrade', or use another database",
        ) from None
    except (StorageError, ImportError, ValueError, sqlalchemy.exc.ArgumentError) as error:
        reason = type(error.__cause__ or error).__name__ if config.url_env else f"{error.__cause__ or error}"
        raise ConfigError(
            where,
            f"the study's storage cannot be used ({reason.strip().splitlines()[0]})",
            "start the server, correct the URL, or install the database's package",
        ) from None


@contextmanager
def told_as_storage_error() -> Iterator[None]:
    """Raise what a storage raises when it is out of reach as our own error.

    Raises:
        StorageError: in place of whatever the storage's library has for it.
    """
    unreachable: list[type[Exception]] = [StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError]
    if find_spec("redis") is not None:
        from redis.exceptions import RedisError

        unreachable.append(RedisError)
    try:
        yield
    except tuple(unreachable) as error:
        raise StorageError(f"the study's storage cannot be used: {type(error).__name__}") from error


def opened_with(config: StorageConfig, folder: Folder) -> str:
    """How ``optuna-dashboard`` is told of the storage; a URL that a variable holds stays there."""
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
    """The storage; of several processes that come first and make its tables at once, all but one must look again."""
    return RDBStorage(url)


def _journal_path(config: JournalStorageConfig, folder: Folder) -> Path:
    if config.path is not None:
        return config.path
    local = folder.local
    if local is None:
        raise ConfigError(
            "sweep.storage",
            f"a journal cannot be kept at {folder.url!r}, which is no local folder",
            "set sweep.storage.path to a file that all processes reach, or use a database",
        )
    return local / _JOURNAL


def _journal(path: Path) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_MendingLock(path)))
    except (OSError, ValueError) as error:
        raise ConfigError("sweep.storage", f"{str(path)!r} cannot be used ({error})", "name another file") from None


class _MendingLock(JournalFileSymlinkLock):
    """Cuts off what a process that was killed in the middle of a line left: the next line would be lost with it."""

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
    assert url is not None  # noqa: S101  # the section has seen to it
    # The driver that is named in our extras, where none is named.
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return _PSYCOPG + url.removeprefix(plain)
    return url


def _require(module: str, package: str, where: str) -> None:
    if find_spec(module) is None:
        raise ConfigError(where, f"needs the package {package}", f"install it: pip install '{package}'")
