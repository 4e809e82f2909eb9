"""Notes as consoles kept them before: a file of their own. It is read once, said on the notes' topic, and deleted.
Until all of it is there, it stays: what was sent already is known by its key and not sent again.
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from schemas.errors import HeadraceError
from streams.console.notes import Note, NoteBook

log = logging.getLogger(__name__)

FILE = "notes.db"


def move_notes(folder: Path, book: NoteBook, user_of: Callable[[str], str | None]) -> bool:
    """Whether nothing is left to be moved. user_of: whose an order is, once all alerts have been read; None: its case
    is gone, and no page would show its notes: they go."""
    path = folder / FILE
    if not path.exists():
        return True
    try:
        named = [(note, user_of(note.order_id)) for note in _read(path)]
        for note, user_id in named:
            if user_id is not None:
                book.add(note, user_id)
    except (HeadraceError, sqlite3.Error) as error:
        log.warning("the notes in %s wait for their topic: %s", path, error)
        return False
    _delete(path)
    moved = sum(user_id is not None for _, user_id in named)
    log.info("%d of %d notes of %s are on their topic now, the others' cases are gone", moved, len(named), path)
    return True


def _read(path: Path) -> list[Note]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT note_id, order_id, who, at, text FROM notes ORDER BY at, note_id")
        return [Note(*row) for row in rows.fetchall()]


def _delete(path: Path) -> None:
    """What it said is overwritten first, as it always was in this file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("DELETE FROM notes")
    for name in (path, path.with_name(path.name + "-journal")):
        name.unlink(missing_ok=True)
