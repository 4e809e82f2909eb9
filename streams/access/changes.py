"""Changes of accounts on their way to the audit log: each is written in the transaction that makes the change.
So none is lost where no broker answers; whoever reaches one next sends what is there."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streams.access.database import Database

CLAIM_MS = 120_000  # longer than an append tries


@dataclass(frozen=True, slots=True)
class Change:
    """What the audit log is to be told. `who` and `subject` are names here and pseudonyms there."""

    id: int
    at: int
    who: str
    action: str
    subject: str
    detail: Mapping[str, Any]


def note(connection: sqlite3.Connection, now_ms: int, who: str, action: str, subject: str, **detail: Any) -> None:
    """Within the transaction of what is changed."""
    row = now_ms, who, action, subject, json.dumps(detail)
    connection.execute(
        "INSERT INTO changes (at, who, action, subject, detail, claimed_until) VALUES (?, ?, ?, ?, ?, 0)", row
    )


class Changes:
    """The queue. One sender at a time has a change; one that dies with it leaves it to the next after CLAIM_MS."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self) -> int:
        with self._database.look() as connection:
            (count,) = connection.execute("SELECT count(*) FROM changes").fetchone()
        return int(count)

    def claim(self, now_ms: int) -> Change | None:
        """The oldest. None if there is none, or if somebody else is sending: their order is kept."""
        with self._database.change() as connection:
            row = connection.execute(
                "SELECT id, at, who, action, subject, detail, claimed_until FROM changes ORDER BY id LIMIT 1"
            ).fetchone()
            if row is None or now_ms < row[6] <= now_ms + CLAIM_MS:
                return None
            connection.execute("UPDATE changes SET claimed_until = ? WHERE id = ?", (now_ms + CLAIM_MS, row[0]))
        number, at, who, action, subject, detail, _ = row
        return Change(number, at, who, action, subject, json.loads(detail))

    def release(self, change: Change) -> None:
        """It could not be sent."""
        with self._database.change() as connection:
            connection.execute("UPDATE changes SET claimed_until = 0 WHERE id = ?", (change.id,))

    def sent(self, change: Change) -> None:
        with self._database.change() as connection:
            connection.execute("DELETE FROM changes WHERE id = ?", (change.id,))
