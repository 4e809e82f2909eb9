"""The log of the forgotten, topic privacy.forgotten: followed by whoever keeps something of people, and written to.
Nothing on it says who somebody was: a keyed hash, and while a request is open the user_id under the same key.
"""

import logging
import threading
from collections.abc import Sequence

import confluent_kafka

from schemas.errors import BadRecord, BrokerUnavailable, ProduceFailed
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.compacted import Compacted
from streams.config import Settings
from streams.events import Record
from streams.notices import Notices
from streams.offsets import bounds, read_range
from streams.privacy.entries import Entries, Entry
from streams.privacy.erasures import Erasures, Raw
from streams.privacy.persons import persons

log = logging.getLogger(__name__)

PARTITION = 0
TIMEOUT_S = 15.0


class Ledger:
    """Follows the topic. Safe from any thread."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises SettingsError (of the key), RegistryUnavailable."""
        self._settings, self._registry = settings, registry
        self.persons = persons(settings)
        self._decode = Decoder(registry, "forgotten")
        self._lock, self._notices = threading.Lock(), Notices(log)
        self._known: dict[str, Entry] = {}
        self._made: Erasures | None = Erasures(self.persons)
        self._reader = Compacted(settings, settings.topics.forgotten, self._apply)

    def wait_current(self, timeout: float = TIMEOUT_S) -> None:
        self._reader.wait_current(timeout)

    def stop(self) -> None:
        self._reader.stop()

    @property
    def erasures(self) -> Erasures:
        """As of now."""
        if (made := self._made) is None:
            with self._lock:
                made = self._made = Erasures(self.persons, Entries(self._known))
        return made

    @property
    def entries(self) -> Entries:
        return self.erasures.entries

    def kept(
        self, topic: int, records: Sequence[Raw], decoded: Sequence[Record | BadRecord]
    ) -> tuple[Sequence[Raw], Sequence[Record | BadRecord]]:
        """Erasures.kept, as of now."""
        return self.erasures.kept(topic, records, decoded)

    def put(self, entry: Entry) -> None:
        """Writes to the topic; it comes back with the others. Blocks. Raises what LedgerWriter does."""
        LedgerWriter(self._settings, self._registry).put(entry)

    def _apply(self, key: bytes, value: bytes | None) -> None:
        entry = Entry.of(self._decode(value)) if value is not None else None
        if entry is not None and entry.key_id != self.persons.key_id:
            what = f"request {entry.receipt} is under the key {entry.key_id}, and ours is {self.persons.key_id}"
            self._notices.say("a person is not forgotten here", f"{what}: give all processes the same privacy.key")
        with self._lock:
            self._known.pop(key.decode(), None)
            if entry is not None:
                self._known[entry.key] = entry
            self._made = None


def read_ledger(settings: Settings, registry: Registry) -> Erasures:
    """What is on the topic now. Raises BrokerUnavailable, RegistryUnavailable, SettingsError (no such topic)."""
    topic, decode, known = settings.topics.forgotten, Decoder(registry, "forgotten"), dict[str, Entry]()
    low, high = bounds(settings, [(topic, PARTITION)])[topic, PARTITION]
    for messages in read_range(settings, topic, PARTITION, low, high):
        for message in messages:
            known.pop((message.key() or b"").decode(), None)
            if message.value() is not None:
                entry = Entry.of(decode(message.value()))
                known[entry.key] = entry
    return Erasures(persons(settings), Entries(known))


class LedgerWriter:
    """Writes to the topic; returns when the broker has it. Raises ProduceFailed, BrokerUnavailable."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises RegistryUnavailable, SchemaError."""
        self._topic = settings.topics.forgotten
        self._encode = Encoder(registry, self._topic, "forgotten")
        conf = {**settings.librdkafka(), "acks": "all", "enable.idempotence": True}
        self._producer = confluent_kafka.Producer(conf, logger=log)

    def put(self, entry: Entry) -> None:
        refused: list[confluent_kafka.KafkaError] = []
        self._producer.produce(
            self._topic, self._encode(entry.record()), entry.key.encode(), PARTITION,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )  # fmt: skip
        if self._producer.flush(TIMEOUT_S):
            raise BrokerUnavailable(f"no answer in {TIMEOUT_S:.0f} s", where=self._topic)
        if refused:
            raise ProduceFailed(refused[0].str(), where=self._topic)
