"""What a dead letter is published as when it is brought home: the message as it came, to where it came from.
An event whose user has no pseudonym, where they are to have one, comes home under the pseudonym: so it can be used.
"""

from collections.abc import Callable

from schemas.errors import BadRecord, SettingsError
from schemas.reading import Record
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.events import EVENT_TYPES
from streams.partitioning import partition_for
from streams.privacy.pseudonyms import pseudonyms
from streams.transactions import Sent

REPLAY = "headrace-replay"  # of an event: how often it was brought home
MOVED = "headrace-moved"  # of an event that was sent on to its user's partition; a replay begins anew

Message = tuple[bytes | None, bytes | None]
"""Key and value."""


class Homeward:
    """Used from one thread."""

    def __init__(self, settings: Settings, registry: Registry, partitions: Callable[[str], int]) -> None:
        """`partitions`: how many a topic has; SettingsError where there is none."""
        self._registry, self._count = registry, partitions
        self._partitions: dict[str, int] = {}
        known = pseudonyms(settings)
        self._known = known if known is not None and known.users else None
        self._events = {settings.topics.inputs[kind.topic]: kind.schema for kind in EVENT_TYPES}
        self._codecs: dict[str, tuple[Decoder, Encoder]] = {}

    def __call__(self, record: Record) -> Sent:
        """Of a letter that is open. Raises SettingsError, RegistryUnavailable."""
        topic = record["topic"]
        if record["sealed"]:
            raise SettingsError("it is sealed under a key that is not known here", todo="see privacy.pseudonym_keys")
        if topic not in self._partitions:
            self._partitions[topic] = self._count(topic)
        key, value = self._named(topic, record["key"], record["value"])
        count = self._partitions[topic]
        partition = min(record["partition"], count - 1) if key is None else partition_for(key, count)
        headers = [(item["name"], item["value"]) for item in record["headers"] if item["name"] != MOVED]
        headers.append((REPLAY, str(record["replays"] + 1).encode()))
        return Sent(topic, partition, key, value, headers)

    def _named(self, topic: str, key: bytes | None, value: bytes | None) -> Message:
        """What cannot be read goes as it came: it has no user yet."""
        if self._known is None or topic not in self._events or value is None:
            return key, value
        if topic not in self._codecs:
            contract = self._events[topic]
            self._codecs[topic] = Decoder(self._registry, contract), Encoder(self._registry, topic, contract)
        decode, encode = self._codecs[topic]
        try:
            event = decode(value)
        except BadRecord:
            return key, value
        named = self._known.published(event)
        if named["user_id"] == event["user_id"]:
            return key, value
        return named["user_id"].encode(), encode(named)
