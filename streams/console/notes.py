"""What analysts write about a case: the only thing of the console that is nowhere else, so it has a file of its own.
It is no part of the audit log, which keeps for ever: a note can be taken back, and is with the person it is about.
"""

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FILE = "notes.db"
MOST_CHARACTERS = 4_000


class Note(NamedTuple):
    note_id: str
    order_id: str
    who: str
    at: int
    text: str


class NoteBook:
    """Used from any thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(folder / FILE, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS notes (note_id TEXT PRIMARY KEY, order_id TEXT NOT NULL, who TEXT NOT NULL, "
            "at INTEGER NOT NULL, text TEXT NOT NULL)"
        )
        self._connection.execute("CREATE INDEX IF NOT EXISTS notes_order ON notes (order_id, at)")
        (folder / FILE).chmod(0o600)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def add(self, note: Note) -> None:
        """Twice is once."""
        with self._lock:
            self._connection.execute("INSERT OR IGNORE INTO notes VALUES (?, ?, ?, ?, ?)", note)

    def remove(self, note_id: str) -> None:
        with self._lock:
            self._connection.execute("DELETE FROM notes WHERE note_id = ?", (note_id,))

    def forget(self, order_ids: Iterable[str]) -> None:
        """All that was written about these orders."""
        with self._lock:
            gone = [(order_id,) for order_id in order_ids]
            self._connection.executemany("DELETE FROM notes WHERE order_id = ?", gone)

    def of(self, order_id: str) -> list[Note]:
        """The oldest first."""
        with self._lock:
            found = self._connection.execute(
                "SELECT note_id, order_id, who, at, text FROM notes WHERE order_id = ? ORDER BY at, note_id",
                (order_id,),
            ).fetchall()
        return [Note(*row) for row in found]
