"""The owner of entities: joins the touches of the partitions it has, keeps what is known, and says what to publish.
What a touch is, and what its join is, are in streams.entities; who runs an owner is streams.entity_worker.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from schemas.errors import BadRecord
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.entities import FRAUD_MARK, Entity, clear, join, leave, name_of, state_of, touched
from streams.events import Record
from streams.offsets import bounds, offsets_at, read_range


class RawRecord(Protocol):
    """What the owner reads of a Kafka record."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Store(Protocol):
    """Entities by name: a streams.store.UserStore in a folder of its own."""

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def write(self, partition: int, records: Iterable[tuple[bytes, bytes | None]], position: int) -> None: ...
    def position(self, partition: int) -> int: ...
    def drop(self, partition: int) -> None: ...


class EntityOwner:
    """Joins the touches of the partitions of entities.events that this worker owns, and says what to publish.

    Blocking (RocksDB); one call at a time for a partition. The store may be behind or ahead of the committed
    offset: repeats change nothing, and what they concern is published again.
    """

    def __init__(self, store: Store, decode: Decoder, encode: Encoder) -> None:
        """`decode` for entity_touch, `encode` for entity_state."""
        self._store, self._decode, self._encode = store, decode, encode

    def process(
        self, partition: int, records: Sequence[RawRecord]
    ) -> tuple[list[tuple[bytes, bytes | None]], list[tuple[RawRecord, BadRecord]]]:
        """Applies records of one partition, in order. Raises RegistryUnavailable before anything changed.

        Returns (key, value) pairs to publish on entities.state, an entity once, and what is no touch and why.
        """
        touches: list[tuple[RawRecord, Record]] = []
        bad: list[tuple[RawRecord, BadRecord]] = []
        decoded = self._decode.decode_many([record.value for record in records])
        for record, touch in zip(records, decoded, strict=True):
            if record.value is None:
                if (gone := touched(record.key or b"")) is not None:
                    touches.append((record, gone))
            elif isinstance(touch, BadRecord):
                bad.append((record, touch))
            else:
                touches.append((record, touch))
        states = self._joined(partition, touches, records[-1].offset) if records else {}
        return [(name, self._encode(state) if state else None) for name, state in states.items()], bad

    def _joined(
        self, partition: int, touches: Sequence[tuple[RawRecord, Record]], last: int
    ) -> dict[bytes, Record | None]:
        """The newest states to publish, by name; None where there is nothing to tell any more. Those of a repeat are
        in: they may never have been sent."""
        reached = self._store.position(partition)
        known = self._stored(partition, [touch for _, touch in touches])
        states: dict[bytes, Record | None] = {}
        for record, touch in touches:
            name, repeat = name_of(touch), record.offset <= reached
            if record.value is None or (not touch["fraud"] and (record.key or b"").startswith(FRAUD_MARK.encode())):
                told = leave(known, touch) if record.value is None else clear(known, touch)
                if told or repeat:
                    states[name] = state_of(touch, known[name]) if name in known and known[name].notable else None
            elif join(known, touch) or (repeat and known[name].notable):
                states[name] = state_of(touch, known[name])
        rows = ((name, entity.pack() if entity.users else None) for name, entity in known.items())
        self._store.write(partition, rows, max(reached, last))
        return states

    def _stored(self, partition: int, touches: Sequence[Record]) -> dict[bytes, Entity]:
        names = list({name_of(touch): None for touch in touches})
        found = self._store.get_many(partition, names) if names else []
        return {name: Entity.unpack(packed) for name, packed in zip(names, found, strict=True) if packed}

    def rebuild(self, settings: Settings, partition: int, end: int, forgotten_at: int = 0) -> None:
        """Brings the store to offset `end`, the committed one, from the log; publishes nothing.

        To be called when a partition is assigned. forgotten_at: UTC ms; a store that is older may hold somebody who
        was forgotten since, and is made anew. Raises BrokerUnavailable, StateError.
        """
        topic, stood = settings.topics.entity_events, self._store.position(partition)
        low, high = bounds(settings, [(topic, partition)])[topic, partition]
        missed = stood >= 0 and forgotten_at > 0 and stood + 1 < offsets_at(settings, topic, forgotten_at)[partition]
        if stood >= high or missed:  # of another log, or of other people
            self._store.drop(partition)
        start = max(low, self._store.position(partition) + 1)
        for messages in read_range(settings, topic, partition, start, min(end, high)):
            self.process(partition, [_Read(message.offset(), message.key(), message.value()) for message in messages])


class _Read(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
