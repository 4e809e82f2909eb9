"""Chosen fields of events are replaced by a keyed hash as they are read, before anything of ours keeps them.
Equal values stay equal, so cards and addresses are still known again; what they were, only who has the key can try.

A token names its key: `p1:4f…`. A second key may be there beside the one that is used: its tokens can be looked up.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from schemas.errors import BadRecord, SettingsError
from schemas.reading import Record
from schemas.wire import Decoder
from streams.config import Settings
from streams.privacy.persons import key_of
from streams.security import reveal

KINDS = {
    "payment.instrument": "card",
    "device_id": "device",
    "device": "device",
    "billing_address": "address",
    "shipping_address": "address",
    "email": "email",
    "ip": "ip",
    "session_id": "session",
    "query": "query",
    "user_id": "user",
}
"""Of each field what its value is: an address is the same one wherever it stands. An attribute is of its own kind."""
USER = "user_id"
ATTRIBUTE = "attributes."
OWN = "0"  # the id of the key that is derived from privacy.key
HASH_CHARS = 32


class Pseudonyms:
    """Of some fields. The first key is used; the others are known."""

    def __init__(self, fields: Iterable[str], keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self._used = next(iter(keys))
        self.users = USER in (chosen := tuple(fields))
        self._fields = [
            (*_path(field), field if field.startswith(ATTRIBUTE) else KINDS[field]) for field in chosen if field != USER
        ]

    def tokens(self, kind: str, value: str) -> list[str]:
        """Under each key, the one that is used first."""
        return [self._token(ident, kind, value) for ident in self._keys]

    def user(self, user_id: str) -> str:
        """What a user is called on our topics: as they are, where `user_id` is not chosen."""
        return self._token(self._used, KINDS[USER], user_id) if self.users and not self._is_token(user_id) else user_id

    def published(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event as whoever publishes one of ours says it: its user as well, by whom it is placed."""
        return self.event(event) | {USER: self.user(event[USER])}

    def read(self, event: Mapping[str, Any]) -> dict[str, Any] | BadRecord:
        """As `event`. One whose user_id has no pseudonym cannot be used: where it lies goes by the name it has."""
        if self.users and not self._is_token(event[USER]):
            return BadRecord(
                "out_of_range", "a user_id that is no pseudonym", where=USER,
                expected="a pseudonym, as privacy.pseudonymise names user_id",
                todo="publish it by a mapping, `headrace publish` or a request; or bring this letter home",
            )  # fmt: skip
        return self.event(event)

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event with its chosen fields replaced, but for its user; what is a token already, stays."""
        changed = dict(event)
        for outer, name, kind in self._fields:
            within = changed.get(outer) if outer else changed
            if within is None or (value := within.get(name)) in (None, "") or self._is_token(value):
                continue
            token = self._token(self._used, kind, str(value))  # an attribute may be a number
            if outer:
                changed[outer] = {**within, name: token}
            else:
                changed[name] = token
        return changed

    def _token(self, ident: str, kind: str, value: str) -> str:
        text = f"{kind}:{value}".encode("utf-8", "surrogatepass")
        return f"p{ident}:{hashlib.blake2b(text, key=self._keys[ident], digest_size=HASH_CHARS // 2).hexdigest()}"

    def _is_token(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        head, _, rest = value.partition(":")
        return head[:1] == "p" and head[1:] in self._keys and len(rest) == HASH_CHARS


class IngestDecoder(Decoder):
    """A decoder whose records have pseudonyms."""

    def __init__(self, decoder: Decoder, pseudonyms: Pseudonyms) -> None:
        self._of, self._pseudonyms, self.name, self._logical = decoder, pseudonyms, decoder.name, False

    def decode_many(self, values: Sequence[bytes | None]) -> list[Record | BadRecord]:
        found = self._of.decode_many(values)
        return [each if isinstance(each, BadRecord) else self._pseudonyms.read(each) for each in found]


def pseudonyms(settings: Settings) -> Pseudonyms | None:
    """None where nothing is to be replaced. Raises SettingsError."""
    fields = settings.privacy.pseudonymise
    return Pseudonyms(fields, keyring(settings)) if fields else None


def ingesting(settings: Settings, decoder: Decoder) -> Decoder:
    """What reads events with: as it is, where nothing is to be replaced."""
    known = pseudonyms(settings)
    return IngestDecoder(decoder, known) if known is not None else decoder


def publishing(settings: Settings) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What events are sent through before Headrace itself publishes them. Raises SettingsError."""
    known = pseudonyms(settings)
    return known.published if known is not None else lambda event: event


def names_of(settings: Settings, user_id: str) -> list[str]:
    """What a user is called on our topics under each key, the one that is used first. Raises SettingsError."""
    known = pseudonyms(settings)
    if known is None or not known.users or known.user(user_id) == user_id:
        return [user_id]
    return known.tokens(KINDS[USER], user_id)


def keyring(settings: Settings) -> dict[str, bytes]:
    """Keys by id, the one that is used first. Raises SettingsError."""
    given = reveal(settings.privacy.pseudonym_keys)
    if not given:
        return {OWN: hashlib.blake2b(b"pseudonyms", key=key_of(settings), digest_size=32).digest()}
    keys = {}
    for part in given.split(","):
        ident, _, text = part.strip().partition(":")
        if not ident.isalnum() or len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef") or ident in keys:
            raise SettingsError(
                "a key of the pseudonyms cannot be used",
                where="privacy.pseudonym_keys",
                expected="ID:KEY, several with commas, the one that is used first; a key is 64 hexadecimal digits",
            )
        keys[ident] = bytes.fromhex(text)
    return keys


def _path(field: str) -> tuple[str, str]:
    outer, dot, name = field.partition(".")
    return (outer, name) if dot else ("", field)
