"""What the audit log calls people: a keyed hash of a name, under a key that never leaves this folder.
Who has the key and the names can look one up; without the key, a pseudonym says nothing."""

import getpass
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from schemas.errors import StateError
from streams.access.places import PSEUDONYM_KEY, private_file, write_private

LENGTH = 16
SHELL = "shell:"  # a person at the command line, by the name that the machine knows


class Pseudonyms:
    def __init__(self, folder: Path) -> None:
        """Makes the key where there is none. Raises SettingsError, StateError."""
        path = folder / PSEUDONYM_KEY
        if not path.exists():
            write_private(path, secrets.token_hex(32) + "\n", new=True)
        text = private_file(path).read_text("ascii", "replace").strip()
        if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
            raise StateError(
                "the key of the pseudonyms is damaged",
                where=str(path),
                expected="64 hexadecimal digits",
                todo="take it from a backup; with another key, names of earlier entries cannot be found any more",
            )
        self._key = bytes.fromhex(text)

    def of(self, name: str) -> str:
        return hmac.new(self._key, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:LENGTH]

    def of_token(self, token: str) -> str:
        """Of a user, card or address on a list: the log keeps for ever. Equal for equal tokens, and no way back."""
        return self.of(f"token:{token}")

    def names(self, names: Iterable[str]) -> dict[str, str]:
        """Pseudonym -> name."""
        return {self.of(name): name for name in names}


def shell_user() -> str:
    """Who runs this command, as the audit log is to know them."""
    try:
        return SHELL + getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return f"{SHELL}{os.getuid()}"


def shell_users() -> list[str]:
    """All whom this machine knows by name, and whoever runs this."""
    import pwd

    return sorted({shell_user(), *(SHELL + entry.pw_name for entry in pwd.getpwall())})
