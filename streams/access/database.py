"""The accounts' SQLite file: 0600, in WAL mode, one connection that threads take turns with.
Several processes may use it at once; a change holds the file's write lock for some milliseconds."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from schemas.errors import HeadraceError, SettingsError, StateError
from streams.access.places import private_file

VERSION = 1
BUSY_S = 5.0

Result = TypeVar("Result")

TABLES = (
    """CREATE TABLE users (name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL, disabled INTEGER NOT NULL,
    made_at INTEGER NOT NULL, seen_at INTEGER NOT NULL)""",
    """CREATE TABLE tokens (id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES users,
    role TEXT NOT NULL, actions TEXT NOT NULL, made_at INTEGER NOT NULL, ends_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL)""",
    """CREATE TABLE sessions (digest TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users, csrf TEXT NOT NULL,
    made_at INTEGER NOT NULL, seen_at INTEGER NOT NULL, ends_at INTEGER NOT NULL)""",
    "CREATE INDEX sessions_of ON sessions (user)",
    """CREATE TABLE codes (digest TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users,
    ends_at INTEGER NOT NULL)""",
    "CREATE TABLE attempts (key TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_at INTEGER NOT NULL)",
    "CREATE INDEX attempts_by_age ON attempts (last_at)",
    """CREATE TABLE changes (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL,
    action TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL, claimed_until INTEGER NOT NULL)""",
)


class Database:
    """Safe from threads. What is wrong with the file is a StateError, or a SettingsError if it cannot be there."""

    def __init__(self, path: Path) -> None:
        self.path = private_file(path)
        self._lock = threading.Lock()
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                _patiently(lambda: self._connection.execute("PRAGMA journal_mode=WAL"))
                # A change that was said to be done stays done: it may be a rights' end.
                self._connection.execute("PRAGMA synchronous=FULL")
                self._connection.execute("PRAGMA foreign_keys=ON")
                self._furnish()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """All that is done within, or nothing of it; no other process changes anything meanwhile."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:  # a full disk has undone it already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """For one question: each statement sees what is committed by then."""
        with self._lock, self._explained():
            yield self._connection

    def _furnish(self) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for table in TABLES:
                    connection.execute(table)
                connection.execute(f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise SettingsError(
                    f"the accounts are of version {version}",
                    where=str(self.path),
                    expected=f"version {VERSION}",
                    todo="use the Headrace that made them",
                )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._meant(error) from error

    def _meant(self, error: sqlite3.Error) -> HeadraceError:
        return StateError(
            f"the accounts cannot be used: {error}",
            where=str(self.path),
            expected="a SQLite file of Headrace's on a local disk with space left",
            todo="if it is damaged, take it from a backup; without it, nobody can log in",
        )


def _patiently(ask: Callable[[], Result]) -> Result:
    """Again while another process has the file: the way to WAL does not wait by itself."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return ask()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
