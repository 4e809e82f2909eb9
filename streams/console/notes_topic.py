"""Notes on their topic, console.notes: written when all replicas have them, and followed by every console of the shop.
What a note says, and who wrote it, is sealed: who may read the topic alone learns that there is a note on an order.
"""

import json
from functools import cached_property

from schemas.errors import HeadraceError
from schemas.registry import Registry
from schemas.wire import Decoder, Encoder
from streams.acknowledged import AcknowledgedWriter
from streams.clients import require_broker
from streams.compacted import Compacted
from streams.config import Settings
from streams.console.notes import Note, NoteBook
from streams.privacy.persons import persons
from streams.privacy.seals import seals

CONTRACT = "case_note"
PARTITION = 0
TIMEOUT_S = 10.0
WHO, TEXT = "who", "text"


class NotesTopic:
    """From any thread."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises SettingsError, of the key."""
        self._settings, self._registry = settings, registry
        self._seals, self._persons = seals(settings, "notes"), persons(settings)
        self._decode = Decoder(registry, CONTRACT)
        self._writer = AcknowledgedWriter(settings, settings.topics.notes, TIMEOUT_S)
        self._reader: Compacted | None = None

    def follow(self, book: NoteBook) -> None:
        """Starts at once; a broker that is away is waited for."""

        def take(key: bytes, value: bytes | None) -> None:
            name = key.decode("utf-8", "replace")
            book.apply(name, self._note(name, value) if value is not None else None)

        self._reader = Compacted(self._settings, self._settings.topics.notes, take)

    def wait_current(self, timeout: float) -> None:
        assert self._reader is not None
        self._reader.wait_current(timeout)

    @property
    def error(self) -> HeadraceError | None:
        """What keeps notes from being shown now."""
        return self._reader.error if self._reader is not None else None

    def stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def put(self, note: Note, user_id: str) -> None:
        """Raises BrokerUnavailable, RegistryUnavailable, ProduceFailed."""
        require_broker(self._settings)
        said = json.dumps({WHO: note.who, TEXT: note.text}).encode()
        record = {
            "note_id": note.note_id, "order_id": note.order_id, "at": note.at,
            "person": self._persons.of(user_id) if user_id else "", "sealed": self._seals.seal(said, note.key),
        }  # fmt: skip
        self._writer.send(note.key.encode(), self._encode(record), PARTITION)

    def delete(self, key: str) -> None:
        """Raises BrokerUnavailable, ProduceFailed."""
        require_broker(self._settings)
        self._writer.send(key.encode(), None, PARTITION)

    @cached_property
    def _encode(self) -> Encoder:
        return Encoder(self._registry, self._settings.topics.notes, CONTRACT)

    def _note(self, key: str, value: bytes) -> Note:
        """Raises BadRecord, and StateError where it was sealed under a key that is not known here."""
        record = self._decode(value)
        said = json.loads(self._seals.open(record["sealed"], key))
        return Note(record["note_id"], record["order_id"], said[WHO], record["at"], said[TEXT])
