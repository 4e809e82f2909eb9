"""The users: names, roles and password hashes. Nobody is deleted, so that the audit log's names stay known.
What takes rights away takes effect at once: the sessions and login codes of whom it is about end with it."""

import re
import sqlite3
from dataclasses import dataclass

from schemas.errors import SettingsError
from streams.access.attempts import forget_name
from streams.access.changes import note
from streams.access.database import Database
from streams.access.passwords import Passwords
from streams.access.roles import checked_role

NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
COLUMNS = "name, role, hash, disabled, made_at, seen_at"


@dataclass(frozen=True, slots=True)
class User:
    """As the file has it. Without a hash no password fits: a service's user, with tokens, or a demo's."""

    name: str
    role: str
    hash: str
    disabled: bool
    made_at: int
    seen_at: int
    """Of the last login, UTC ms; 0: never."""


class Users:
    """`by` is the name of who makes a change."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database, self._passwords = database, passwords

    def find(self, name: str) -> User | None:
        with self._database.look() as connection:
            return _found(connection, normal_name(name))

    def all(self) -> list[User]:
        with self._database.look() as connection:
            rows = connection.execute(f"SELECT {COLUMNS} FROM users ORDER BY name").fetchall()
        return [_user(row) for row in rows]

    def add(self, name: str, role: str, password: str | None, *, by: str, now_ms: int) -> User:
        """SettingsError if there is one of that name, or something given cannot be used."""
        name, hashed = _checked_name(name), "" if password is None else self._passwords.hash(password)
        user = User(name, checked_role(role), hashed, False, now_ms, 0)
        with self._database.change() as connection:
            if _found(connection, name) is not None:
                raise SettingsError(
                    f"there is a user {name} already", todo=f"`headrace users role {name} {role}` changes the role"
                )
            values = user.name, user.role, user.hash, 0, now_ms, 0
            connection.execute(f"INSERT INTO users ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", values)
            note(connection, now_ms, by, "users.add", name, role=role)
        return user

    def set_role(self, name: str, role: str, *, by: str, now_ms: int) -> None:
        checked_role(role)
        with self._database.change() as connection:
            user = _known(connection, name)
            if user.role == role:
                return
            if user.role == "admin" and user.hash:
                _another_admin(connection, user)
            connection.execute("UPDATE users SET role = ? WHERE name = ?", (role, user.name))
            _end_sessions(connection, user.name)
            note(connection, now_ms, by, "users.role", user.name, role=role, before=user.role)

    def set_password(self, name: str, password: str, *, by: str, now_ms: int) -> None:
        hashed = self._passwords.hash(password)
        with self._database.change() as connection:
            user = _known(connection, name)
            connection.execute("UPDATE users SET hash = ? WHERE name = ?", (hashed, user.name))
            _end_sessions(connection, user.name)
            forget_name(connection, user.name)
            note(connection, now_ms, by, "users.password", user.name)

    def disable(self, name: str, *, by: str, now_ms: int) -> None:
        """Sessions end, and tokens are refused for as long as it is so."""
        with self._database.change() as connection:
            user = _known(connection, name)
            if user.disabled:
                return
            if user.role == "admin" and user.hash:
                _another_admin(connection, user)
            connection.execute("UPDATE users SET disabled = 1 WHERE name = ?", (user.name,))
            _end_sessions(connection, user.name)
            note(connection, now_ms, by, "users.disable", user.name)

    def enable(self, name: str, *, by: str, now_ms: int) -> None:
        """Also ends the wait after wrong passwords."""
        with self._database.change() as connection:
            user = _known(connection, name)
            forget_name(connection, user.name)
            if user.disabled:
                connection.execute("UPDATE users SET disabled = 0 WHERE name = ?", (user.name,))
                note(connection, now_ms, by, "users.enable", user.name)

    def renew_hash(self, user: User, password: str) -> None:
        """The same password with today's parameters; nothing if it was changed meanwhile."""
        hashed = self._passwords.hash(password)
        with self._database.change() as connection:
            connection.execute("UPDATE users SET hash = ? WHERE name = ? AND hash = ?", (hashed, user.name, user.hash))


def normal_name(name: str) -> str:
    return name.strip().lower()


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(normal_name(name)):
        raise SettingsError(
            f"{name!r} cannot be a user's name",
            expected="up to 64 letters a to z, digits, or . _ @ + -, with a letter or digit first",
        )
    return normal_name(name)


def _user(row: tuple[str, str, str, int, int, int]) -> User:
    name, role, hashed, disabled, made_at, seen_at = row
    return User(name, role, hashed, bool(disabled), made_at, seen_at)


def _found(connection: sqlite3.Connection, name: str) -> User | None:
    row = connection.execute(f"SELECT {COLUMNS} FROM users WHERE name = ?", (name,)).fetchone()
    return _user(row) if row is not None else None


def _known(connection: sqlite3.Connection, name: str) -> User:
    user = _found(connection, normal_name(name))
    if user is None:
        raise SettingsError(f"there is no user {name!r}", expected="a name of `headrace users list`")
    return user


def _another_admin(connection: sqlite3.Connection, user: User) -> None:
    """SettingsError if without this one nobody could give rights any more."""
    row = connection.execute(
        "SELECT 1 FROM users WHERE role = 'admin' AND disabled = 0 AND hash <> '' AND name <> ?", (user.name,)
    ).fetchone()
    if row is None:
        raise SettingsError(
            f"{user.name} is the last admin who can log in", todo="make another one: `headrace users add NAME`"
        )


def _end_sessions(connection: sqlite3.Connection, name: str) -> None:
    for table in ("sessions", "codes"):
        connection.execute(f"DELETE FROM {table} WHERE user = ?", (name,))
