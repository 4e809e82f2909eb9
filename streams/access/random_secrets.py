"""Random secrets that we give out once and keep as digests: sessions, tokens, codes.
They are of 256 bits, so a plain SHA-256 is enough: nobody can try them all."""

import hashlib
import secrets


def make_secret(prefix: str = "") -> str:
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
