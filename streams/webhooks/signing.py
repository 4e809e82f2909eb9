"""Signatures of webhooks: `Headrace-Signature: t=<unix seconds>,v1=<hex HMAC-SHA-256 of "<t>.<body>">`.
Each secret in force gives a v1, so a receiver changes to a new one when it likes.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import SettingsError
from streams.config_sections import Endpoint

MIN_SECRET = 16


def signature(body: bytes, secrets: Sequence[bytes], now_s: int) -> str:
    """The header's value."""
    signed = str(now_s).encode() + b"." + body
    return ",".join(
        [f"t={now_s}", *(f"v1={hmac.new(secret, signed, hashlib.sha256).hexdigest()}" for secret in secrets)]
    )


def read_secrets(endpoint: Endpoint) -> list[bytes]:
    """From where the settings say they are. SettingsError."""
    return [_read(endpoint.name, source) for source in endpoint.secrets]


def _read(endpoint: str, source: str) -> bytes:
    kind, _, name = source.partition(":")
    where = f"webhooks.endpoints, secrets of {endpoint}, {source}"
    if kind == "env":
        found = os.environ.get(name, "")
    else:
        try:
            found = Path(name).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"the secret cannot be read: {error}", where=where, expected="a file of text"
            ) from error
    secret = found.strip().encode()
    if len(secret) < MIN_SECRET:
        raise SettingsError(
            "the secret is not there" if not secret else f"the secret is of {len(secret)} bytes",
            where=where,
            expected=f"{MIN_SECRET} bytes or more that nobody can guess",
            todo="make one with `openssl rand -hex 32`",
        )
    return secret
