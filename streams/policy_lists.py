"""The lists' topic as people and services change it: an entry is put on a list, or taken off, and both are kept.
What workers make of it is streams.policy.lists.
"""

from dataclasses import dataclass

from schemas.errors import SettingsError
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.acknowledged import AcknowledgedWriter
from streams.config import Settings
from streams.offsets import newest_by_key
from streams.policy.lists import BLOCK, ITEM, LISTS, TYPES, key

PARTITION = 0
MOST_CHARS = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """until: UTC ms in event time; None: until it is taken off."""

    list: str
    type: str
    token: str
    reason: str
    until: int | None
    by: str
    at: int

    @property
    def key(self) -> str:
        return key(self.list, self.type, self.token)


def read_entries(settings: Settings, registry: Registry) -> list[Entry]:
    """What is on the lists now, also what has ended, oldest first. Raises BrokerUnavailable, SettingsError."""
    decode = Decoder(registry, "list_entry")
    records = map(decode, newest_by_key(settings, settings.topics.lists, PARTITION).values())
    return [Entry(*(record[field] for field in Entry.__slots__)) for record in records]


def checked(name: str, kind: str, token: str) -> str:
    """The entry's key. Raises SettingsError."""
    for value, known, what in ((name, LISTS, "list"), (kind, TYPES, "type")):
        if value not in known:
            raise SettingsError(
                f"{value!r} is no {what}", where="a list's entry", expected=f"one of {', '.join(known)}"
            )
    if kind == ITEM and name != BLOCK:
        raise SettingsError(
            f"an item on the {name} list", where="a list's entry", expected=f"{BLOCK}: no rule reads items",
        )  # fmt: skip
    if not 0 < len(token) <= MOST_CHARS:
        raise SettingsError(
            f"a token of {len(token)} characters", where=f"{name}/{kind}", expected=f"1 to {MOST_CHARS}"
        )
    return key(name, kind, token)


class ListWriter:
    """Writes to the topic; returns when the broker has it. Raises ProduceFailed, BrokerUnavailable."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._topic = settings.topics.lists
        self._encode = Encoder(registry, self._topic, "list_entry")
        self._writer = AcknowledgedWriter(settings, self._topic)

    def put(self, entry: Entry) -> None:
        """Raises SettingsError for a list or a type that there is none of."""
        named = checked(entry.list, entry.type, entry.token)
        self._send(named, self._encode({field: getattr(entry, field) for field in Entry.__slots__}))

    def take_off(self, name: str, kind: str, token: str) -> None:
        self._send(checked(name, kind, token), None)

    def _send(self, named: str, value: bytes | None) -> None:
        self._writer.send(named.encode(), value, PARTITION)
