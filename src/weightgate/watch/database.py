"""The small SQL layer: one connection to SQLite or PostgreSQL, the same statements for both.

Statements use `?` for values. Whoever writes holds the lock of his watch, which the operating system or the server
takes back when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from weightgate.errors import UserError, WatchError

try:
    import psycopg
except ModuleNotFoundError:  # the extra `postgres` is not installed; SQLite needs nothing
    psycopg = None  # type: ignore[assignment]

_POSTGRES = ("postgresql://", "postgres://")
_BUSY_SECONDS = 30.0
_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, OSError) + ((psycopg.Error,) if psycopg else ())


@dataclass(frozen=True, kw_only=True)
class Database:
    """A connection. `place` is what messages call it, without a password; `file` is None for a server."""

    connection: Any
    place: str
    file: Path | None

    @classmethod
    def open(cls, url: str, password: str | None, folder: Path) -> Database:
        """Connect. A path that is not absolute is found from `folder`. Raises `WatchError` where that fails."""
        if url.startswith(_POSTGRES):
            return cls(connection=_connect_server(url, password), place=shown_url(url), file=None)
        path = folder / url
        return cls(connection=_connect_file(path), place=str(path), file=path)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one query and return all rows."""
        with self._explained():
            found: list[tuple[Any, ...]] = self._cursor().execute(self._dialect(sql), values).fetchall()
            return found

    def run(self, sql: str, *values: Any) -> None:
        """Run one statement."""
        with self._explained():
            self._cursor().execute(self._dialect(sql), values)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        with self._explained():
            self._cursor().executemany(self._dialect(sql), list(rows))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, durably, or nothing does."""
        with self._explained():
            if self.file is None:
                with self.connection.transaction():
                    yield
                return
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def has_table(self, name: str) -> bool:
        """Whether there is a table of that name."""
        if self.file is not None:
            return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name))
        return self.rows("SELECT to_regclass(?)", name)[0][0] is not None

    def wait_for_others(self, name: str) -> None:
        """Let one transaction at a time go on behind this; SQLite's transactions exclude each other anyway."""
        if self.file is None:
            self.rows("SELECT pg_advisory_xact_lock(?)", _lock_number(name))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of a watch. Raises `WatchError` where another process has it."""
        if self.file is not None:
            with self._file_lock(self.file.with_name(f"{self.file.name}.{name}.lock"), name):
                yield
            return
        number = _lock_number(f"watch {name}")
        if not self.rows("SELECT pg_try_advisory_lock(?)", number)[0][0]:
            raise self._taken(name)
        try:
            yield
        finally:
            if not self.connection.closed:
                self.rows("SELECT pg_advisory_unlock(?)", number)

    @contextmanager
    def _file_lock(self, path: Path, name: str) -> Iterator[None]:
        with self._explained():
            file = path.open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._taken(name) from None
            yield

    def _taken(self, name: str) -> WatchError:
        return WatchError(
            f"another process is at the watch {name!r}",
            where=self.place,
            mend="let it finish, or give this watch another name",
        )

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def _cursor(self) -> Any:
        return self.connection.cursor()

    def _dialect(self, sql: str) -> str:
        return sql if self.file is not None else sql.replace("?", "%s")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except _ERRORS as error:
            raise _unusable(error, self.place) from None


def _lock_number(name: str) -> int:
    """Advisory locks of PostgreSQL are named by 64 bits."""
    return int.from_bytes(hashlib.sha256(f"weightgate {name}".encode()).digest()[:8], "big", signed=True)


def shown_url(url: str) -> str:
    """A URL without user, password and parameters."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{parts.hostname or ''}{port}{parts.path}"


def _connect_server(url: str, password: str | None) -> Any:
    if psycopg is None:
        raise WatchError(
            "a history on PostgreSQL needs psycopg",
            where=shown_url(url),
            mend="pip install 'weightgate[postgres]'",
        )
    try:
        if password is None:
            return psycopg.connect(url, autocommit=True, connect_timeout=10)
        return psycopg.connect(url, autocommit=True, connect_timeout=10, password=password)
    except psycopg.Error as error:
        raise _unusable(error, shown_url(url)) from None


def _connect_file(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        raise _unusable(error, str(path)) from None
    return connection


def _unusable(error: Exception, place: str) -> WatchError:
    """What the database says, on one line; psycopg's messages hold no password."""
    found = " ".join(str(error).split()) or type(error).__name__
    return WatchError(
        "the history cannot be used",
        where=place,
        found=found,
        mend="free space, make it writable or restore it from a backup; what was acknowledged is in it",
    )
