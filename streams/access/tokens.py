"""API tokens: what a program of the shop shows instead of a password. Each has an end, and is shown once.
A token may never do more than its user may now, and can be narrowed to some actions."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.errors import SettingsError
from streams.access.changes import note
from streams.access.database import Database
from streams.access.random_secrets import digest, make_secret
from streams.access.roles import Identity, checked_actions, checked_role, lower
from streams.access.users import normal_name

PREFIX = "headrace_"  # so that one who finds it knows what it opens
DAY_MS = 86_400_000
LONGEST_DAYS = 3_650
USED_EVERY_MS = 60_000


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of it; not the token."""

    id: str
    user: str
    role: str
    only: tuple[str, ...]
    made_at: int
    ends_at: int
    used_at: int
    """UTC ms, to a minute; 0: never."""


class Tokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    def make(
        self, user: str, role: str, *, days: int, by: str, now_ms: int, only: Iterable[str] = ()
    ) -> tuple[Token, str]:
        """The token itself comes second, and never again. `role` empty: as the user's now."""
        user, actions = normal_name(user), checked_actions(only)
        if not 1 <= days <= LONGEST_DAYS:
            raise SettingsError(f"a token of {days} days", expected=f"1 to {LONGEST_DAYS}")
        with self._database.change() as connection:
            row = connection.execute("SELECT role FROM users WHERE name = ?", (user,)).fetchone()
            if row is None:
                raise SettingsError(f"there is no user {user!r}", expected="a name of `headrace users list`")
            role = checked_role(role) if role else row[0]
            if lower(role, row[0]) != role:
                raise SettingsError(f"{user} is {row[0]}, and a token may not do more", expected=f"at most {row[0]}")
            known = Token(secrets.token_hex(4), user, role, actions, now_ms, now_ms + days * DAY_MS, 0)
            secret = make_secret(PREFIX)
            values = known.id, digest(secret), user, role, ",".join(actions), now_ms, known.ends_at, 0
            connection.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            note(connection, now_ms, by, "users.token", user, token=known.id, role=role, only=list(actions), days=days)
        return known, secret

    def all(self, user: str = "") -> list[Token]:
        """Also those whose time is over."""
        with self._database.look() as connection:
            rows = connection.execute(
                "SELECT id, user, role, actions, made_at, ends_at, used_at FROM tokens "
                "WHERE ? IN ('', user) ORDER BY made_at, id",
                (normal_name(user),),
            ).fetchall()
        return [Token(key, of, role, _actions(only), *times) for key, of, role, only, *times in rows]

    def revoke(self, token_id: str, *, by: str, now_ms: int) -> None:
        with self._database.change() as connection:
            row = connection.execute("SELECT user FROM tokens WHERE id = ?", (token_id,)).fetchone()
            if row is None:
                raise SettingsError(f"there is no token {token_id!r}", expected="an id of `headrace users tokens`")
            connection.execute("DELETE FROM tokens WHERE id = ?", (token_id,))
            note(connection, now_ms, by, "users.revoke", row[0], token=token_id)

    def find(self, secret: str, now_ms: int) -> Identity | None:
        if not secret.startswith(PREFIX):
            return None
        key = digest(secret)
        with self._database.look() as connection:
            row = connection.execute(
                "SELECT name, users.role, tokens.role, actions, used_at FROM tokens JOIN users ON user = name "
                "WHERE digest = ? AND disabled = 0 AND ends_at > ?",
                (key, now_ms),
            ).fetchone()
        if row is None:
            return None
        name, users_role, role, actions, used_at = row
        if now_ms >= used_at + USED_EVERY_MS:
            with self._database.change() as connection:
                connection.execute("UPDATE tokens SET used_at = ? WHERE digest = ?", (now_ms, key))
        return Identity(name, lower(users_role, role), only=_actions(actions))


def _actions(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
