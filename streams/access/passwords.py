"""Passwords: argon2id, with the parameters of RFC 9106 for little memory, and the same work for whoever is not known.
A password may be anything of 12 characters or more; how it is made up is not prescribed."""

import unicodedata
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from schemas.errors import SettingsError

SHORTEST, LONGEST = 12, 256


def checked_password(password: str) -> str:
    """SettingsError, which does not show it, if it may not be one."""
    if not SHORTEST <= len(password) <= LONGEST or not _encodable(password):
        raise SettingsError(
            f"the password is of {len(password)} characters", expected=f"{SHORTEST} to {LONGEST} characters of text"
        )
    return password


class Passwords:
    """Each hash takes 64 MiB and a tenth of a second or two, on purpose: bound how many are made at once."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()

    def hash(self, password: str) -> str:
        return self._hasher.hash(_normal(checked_password(password)))

    def fits(self, hashed: str, password: str) -> bool:
        """`hashed` empty: of nobody. The work is the same, and the answer is no."""
        known = bool(hashed) and len(password) <= LONGEST and _encodable(password)
        try:
            self._hasher.verify(hashed if known else self.nobodys, _normal(password) if known else "")
        except (VerificationError, InvalidHashError):
            return False
        return known

    def outdated(self, hashed: str) -> bool:
        """Made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    @cached_property
    def nobodys(self) -> str:
        return self._hasher.hash("a password that nobody has")


def _normal(password: str) -> str:
    """The same password, typed on two systems, may come in two ways."""
    return unicodedata.normalize("NFKC", password)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
