"""Login codes: a link that logs in once, within some minutes, as a user who needs no password for it.
The demo prints one; it is spent when the button behind the link is pressed, not when somebody looks ahead at it."""

from schemas.errors import SettingsError
from streams.access.changes import note
from streams.access.database import Database
from streams.access.random_secrets import digest, make_secret
from streams.access.users import normal_name

MINUTE_MS = 60_000
LONGEST_MINUTES = 24 * 60


class Codes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def make(self, user: str, *, minutes: int, by: str, now_ms: int) -> str:
        """The code; it is not kept. SettingsError if there is no such user, or it is disabled."""
        if not 1 <= minutes <= LONGEST_MINUTES:
            raise SettingsError(f"a login code of {minutes} minutes", expected=f"1 to {LONGEST_MINUTES}")
        user, code = normal_name(user), make_secret()
        with self._database.change() as connection:
            row = connection.execute("SELECT disabled FROM users WHERE name = ?", (user,)).fetchone()
            if row is None or row[0]:
                raise SettingsError(f"there is no user {user!r} who may log in", expected="a name that is enabled")
            values = digest(code), user, now_ms + minutes * MINUTE_MS
            connection.execute("INSERT INTO codes VALUES (?, ?, ?)", values)
            note(connection, now_ms, by, "users.code", user, minutes=minutes)
        return code

    def spend(self, code: str, now_ms: int) -> str | None:
        """The user's name, once; None for a code that was spent, whose time is over, or that is none."""
        with self._database.change() as connection:
            connection.execute("DELETE FROM codes WHERE ends_at <= ?", (now_ms,))
            row = connection.execute("SELECT user FROM codes WHERE digest = ?", (digest(code),)).fetchone()
            connection.execute("DELETE FROM codes WHERE digest = ?", (digest(code),))
        return row[0] if row is not None else None
