"""The log of the forgotten, topic privacy.forgotten: followed by whoever keeps something of people, and written to.
Nothing on it says who somebody was: a keyed hash, and while a request is open the user_id under the same key.
"""

import logging
import threading
from collections.abc import Sequence

from schemas.errors import BadRecord
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.acknowledged import AcknowledgedWriter
from streams.compacted import Compacted
from streams.config import Settings
from streams.events import Record
from streams.notices import Notices
from streams.offsets import newest_by_key
from streams.privacy.entries import Entries, Entry
from streams.privacy.erasures import Erasures, Raw
from streams.privacy.persons import persons

PARTITION = 0
log = logging.getLogger(__name__)

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
    decode = Decoder(registry, "forgotten")
    entries = [
        Entry.of(decode(value)) for value in newest_by_key(settings, settings.topics.forgotten, PARTITION).values()
    ]
    return Erasures(persons(settings), Entries({entry.key: entry for entry in entries}))


class LedgerWriter:
    """Writes to the topic; returns when the broker has it. Raises ProduceFailed, BrokerUnavailable."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises RegistryUnavailable, SchemaError."""
        self._topic = settings.topics.forgotten
        self._encode = Encoder(registry, self._topic, "forgotten")
        self._writer = AcknowledgedWriter(settings, self._topic)

    def put(self, entry: Entry) -> None:
        self._writer.send(entry.key.encode(), self._encode(entry.record()), PARTITION)
