"""How a person is named where their name must not be: a keyed hash, the same in all processes of a shop.
While a request is open, the user_id goes with it under the same key: whoever has files of their own must find it there.
"""

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import SettingsError, StateError
from streams.access.places import private_file, write_private
from streams.config import Settings
from streams.security import reveal

KEY_CHARS = 64
NONCE_BYTES = 12
FILE = "key"


class Persons:
    """Of one key."""

    def __init__(self, key: bytes) -> None:
        self._hash, self._seal = _derived(key, b"hash"), _derived(key, b"seal")
        self.key_id = _derived(key, b"name").hex()[:8]

    def of(self, user_id: str) -> str:
        """What the person is called."""
        return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), key=self._hash, digest_size=16).hexdigest()

    def sealed(self, user_id: str, receipt: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._seal).encrypt(nonce, user_id.encode("utf-8", "surrogatepass"), receipt.encode())

    def opened(self, sealed: bytes, receipt: str) -> str:
        """StateError where it was sealed under another key, or for another request."""
        try:
            content = AESGCM(self._seal).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], receipt.encode())
        except (InvalidTag, ValueError) as error:
            raise StateError(
                "the user_id of a request to forget cannot be read",
                where=f"request {receipt}",
                expected=f"the key {self.key_id}",
                todo="give all processes the same privacy.key",
            ) from error
        return content.decode("utf-8", "surrogatepass")


def persons(settings: Settings) -> Persons:
    """By the key of the settings. Raises SettingsError."""
    return Persons(key_of(settings))


def key_of(settings: Settings) -> bytes:
    """The key of the settings; without one, that of this machine, which is made. Raises SettingsError."""
    given = reveal(settings.privacy.key)
    if given is None:
        path = settings.privacy.key_file or settings.data_dir / "privacy" / FILE
        return _checked(_kept(path.expanduser().absolute()), str(path))
    return _checked(given, "privacy.key")


def _kept(path: Path) -> str:
    if not path.exists():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"the key cannot be kept there: {error.strerror}", where=str(path), todo="set privacy.key_file"
            ) from error
        write_private(path, secrets.token_hex(KEY_CHARS // 2) + "\n", new=True)
    return private_file(path).read_text("ascii", "replace").strip()


def _checked(text: str, where: str) -> bytes:
    if len(text) != KEY_CHARS or not set(text.lower()) <= set("0123456789abcdef"):
        raise SettingsError(
            "the key of the forgotten cannot be used",
            where=where,
            expected=f"{KEY_CHARS} hexadecimal digits",
            todo="with another key than before, who was forgotten comes back when a log is read again",
        )
    return bytes.fromhex(text)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, key=key, digest_size=32).digest()
