"""Sessions: what a browser's cookie stands for. The file has their digests, so it cannot be used to be somebody.
One ends when it was not used for a while, when its time is over, or when its user's rights change."""

import secrets
from dataclasses import dataclass

from streams.access.database import Database
from streams.access.random_secrets import digest, make_secret
from streams.access.roles import Identity
from streams.access.users import User

SEEN_EVERY_MS = 60_000  # a write a minute, not one a request


@dataclass(frozen=True, slots=True)
class Opened:
    """`cookie` is known to the browser alone."""

    cookie: str
    identity: Identity


class Sessions:
    def __init__(self, database: Database, idle_ms: int, most_ms: int) -> None:
        self._database, self._idle_ms, self._most_ms = database, idle_ms, most_ms

    def open(self, user: User, now_ms: int) -> Opened | None:
        """None if the user was changed since it was looked at."""
        cookie, csrf = make_secret(), secrets.token_urlsafe(32)
        with self._database.change() as connection:
            connection.execute("DELETE FROM sessions WHERE ends_at <= ?", (now_ms,))
            same = "name = ? AND role = ? AND hash = ? AND disabled = 0"
            done = connection.execute(
                f"UPDATE users SET seen_at = ? WHERE {same}", (now_ms, user.name, user.role, user.hash)
            )
            if not done.rowcount:
                return None
            row = digest(cookie), user.name, csrf, now_ms, now_ms, now_ms + self._most_ms
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", row)
        return Opened(cookie, Identity(user.name, user.role, csrf))

    def find(self, cookie: str, now_ms: int, *, used: bool = True) -> Identity | None:
        """`used`: by a person; a page that is only open, and asks by itself, does not keep a session alive."""
        key = digest(cookie)
        with self._database.look() as connection:
            row = connection.execute(
                "SELECT name, role, csrf, sessions.seen_at, ends_at FROM sessions JOIN users ON user = name "
                "WHERE digest = ? AND disabled = 0",
                (key,),
            ).fetchone()
        if row is None:
            return None
        name, role, csrf, seen_at, ends_at = row
        if now_ms >= ends_at or now_ms >= seen_at + self._idle_ms:
            self.end(cookie)
            return None
        if used and now_ms >= seen_at + min(SEEN_EVERY_MS, self._idle_ms // 2):
            with self._database.change() as connection:
                connection.execute("UPDATE sessions SET seen_at = ? WHERE digest = ?", (now_ms, key))
        return Identity(name, role, csrf)

    def end(self, cookie: str) -> None:
        with self._database.change() as connection:
            connection.execute("DELETE FROM sessions WHERE digest = ?", (digest(cookie),))
