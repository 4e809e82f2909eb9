"""All accounts together: who there is, how one becomes somebody, and what ends that.
Safe from threads and between processes; time is an argument everywhere."""

from dataclasses import dataclass, replace
from typing import Self

from streams.access.attempts import Attempts
from streams.access.changes import Changes
from streams.access.codes import Codes
from streams.access.database import Database
from streams.access.passwords import Passwords
from streams.access.places import ACCOUNTS, access_folder
from streams.access.roles import Identity, checked_role
from streams.access.sessions import Opened, Sessions
from streams.access.tokens import Tokens
from streams.access.users import NAME, Users, normal_name
from streams.config import Settings

SSO = "sso."


@dataclass(frozen=True, slots=True)
class Refused:
    """A login that was not let in: wrong, or too early by `wait_ms`."""

    wait_ms: int = 0


class Accounts:
    """`sign_in` works for a tenth of a second or two: call it from a thread. All else is quick."""

    def __init__(self, settings: Settings, passwords: Passwords | None = None) -> None:
        """Makes the file where it is not there. Raises SettingsError, StateError."""
        access = settings.access
        self._database = Database(access_folder(settings) / ACCOUNTS)
        self.passwords = passwords or Passwords()
        self.users = Users(self._database, self.passwords)
        self.tokens = Tokens(self._database)
        self.codes = Codes(self._database)
        self.changes = Changes(self._database)
        idle_ms, most_ms = round(access.idle_minutes * 60_000), round(access.session_hours * 3_600_000)
        self.sessions = Sessions(self._database, idle_ms, most_ms)
        self._attempts = Attempts(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def sign_in(self, name: str, password: str, address: str, now_ms: int) -> Opened | Refused:
        """A new session, never one that was there. Who is not known costs as much as who is, and is told the same."""
        name = normal_name(name)
        if not NAME.fullmatch(name):
            name = ""
        if wait := self._attempts.begin(name, address, now_ms):
            return Refused(wait)
        user = self.users.find(name) if name else None
        fits = self.passwords.fits(user.hash if user is not None else "", password)
        if user is None or not fits or user.disabled:
            return Refused()
        if (opened := self.sessions.open(user, now_ms)) is None:
            return Refused()
        self._attempts.succeeded(name, address)
        if self.passwords.outdated(user.hash):
            self.users.renew_hash(user, password)
        return opened

    def redeem(self, code: str, now_ms: int) -> Opened | Refused:
        """A session for a login code, once."""
        name = self.codes.spend(code, now_ms)
        user = self.users.find(name) if name is not None else None
        opened = self.sessions.open(user, now_ms) if user is not None else None
        return opened or Refused()

    def sign_in_by_sso(self, name: str, role: str, now_ms: int) -> Opened | Refused:
        """Whom the identity provider let in. Its users are apart from ours by name; their role is what it says now."""
        name = normal_name(f"{SSO}{name}")
        if not NAME.fullmatch(name):
            return Refused()
        user = self.users.find(name)
        if user is None:
            user = self.users.add(name, role, None, by=name, now_ms=now_ms)
        elif user.role != role and not user.disabled:
            self.users.set_role(name, role, by=name, now_ms=now_ms)
            user = replace(user, role=role)
        return self.sessions.open(user, now_ms) or Refused()

    def by_session(self, cookie: str, now_ms: int, *, used: bool = True) -> Identity | None:
        return self.sessions.find(cookie, now_ms, used=used)

    def by_token(self, token: str, now_ms: int) -> Identity | None:
        return self.tokens.find(token, now_ms)

    def login_code(self, role: str, *, by: str, now_ms: int, minutes: int = 10, name: str = "") -> str:
        """A code that logs in once as a user of this role, `demo.ROLE` by default, who is made if need be.

        A user of that name who has another role gets this one: whoever may call this has the file.
        """
        name = normal_name(name) or f"demo.{checked_role(role)}"
        if (user := self.users.find(name)) is None:
            self.users.add(name, role, None, by=by, now_ms=now_ms)
        elif user.role != role:
            self.users.set_role(name, role, by=by, now_ms=now_ms)
        return self.codes.make(name, minutes=minutes, by=by, now_ms=now_ms)

    def names(self) -> list[str]:
        return [user.name for user in self.users.all()]
