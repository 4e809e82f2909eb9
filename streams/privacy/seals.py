"""Text of people that our own topics keep and that nobody needs to read on the way: sealed with AES-GCM (SP 800-38D).
Not one key a person: whoever is forgotten is deleted as well, as docs/privacy.md says; who has the key opens it.

What is sealed names its key, one of those of the pseudonyms: after a change of keys both are known for a while.
"""

import hashlib
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import StateError
from streams.config import Settings
from streams.privacy.pseudonyms import keyring

NONCE_BYTES = 12
MARK = b":"


class Seals:
    """Of one purpose: what was sealed for another cannot be opened."""

    def __init__(self, keys: Mapping[str, bytes], purpose: str) -> None:
        """The first key is used; the others are known."""
        self._used = next(iter(keys))
        self._keys = {
            ident: AESGCM(hashlib.blake2b(purpose.encode(), key=key, digest_size=32).digest())
            for ident, key in keys.items()
        }

    def seal(self, content: bytes, place: str) -> bytes:
        """`place`: to be said again when it is opened, so that nobody can put it elsewhere."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._keys[self._used].encrypt(nonce, content, place.encode("utf-8", "surrogatepass"))
        return self._used.encode() + MARK + nonce + sealed

    def open(self, sealed: bytes, place: str) -> bytes:
        """StateError where its key is not known here, or it was sealed for another place."""
        ident, _, rest = sealed.partition(MARK)
        key = self._keys.get(ident.decode("ascii", "replace"))
        try:
            if key is not None:
                return key.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], place.encode("utf-8", "surrogatepass"))
        except (InvalidTag, ValueError):
            pass
        raise StateError(
            "it is sealed, and cannot be opened here",
            where=place,
            expected=f"the key {ident.decode('ascii', 'replace')[:20]!r} that it was sealed under",
            todo="give all processes the same privacy.key, or add the key to privacy.pseudonym_keys",
        )


def seals(settings: Settings, purpose: str) -> Seals:
    """By the keys of the settings. Raises SettingsError."""
    return Seals(keyring(settings), purpose)
