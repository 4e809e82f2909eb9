"""Cards, devices, addresses, emails and ips that several users share, or that fraud has touched.
Who scores a user emits touches, an entity's owner joins them, and all workers read what is shared or tainted.

An entity's state is the join of its touches: their order, and how often each comes, make no difference. A touch that
is deleted, as its user was forgotten, takes the user out again.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from itertools import repeat
from struct import Struct
from typing import NamedTuple, Protocol, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.errors import BadRecord
from schemas.wire import Decoder, Encoder
from streams.config import Settings
from streams.events import ENTITY_FIELDS, Record, order_entities
from streams.offsets import bounds, offsets_at, read_range
from streams.partitioning import partition_for

LIMIT = 64  # distinct users kept of an entity; a count of 64 says "64 or more"
_HEAD = Struct("<BqqBB")  # format, first and last time (ms), numbers of users and of frauds; their hashes follow
_FORMAT = 1


def touches(order: Record, known: Iterable[bool]) -> list[Record]:
    """Touches of the entities that an order's user uses for the first time; `known` is by ENTITY_FIELDS."""
    return [
        touch(kind, token, order)
        for kind, token, seen in zip(ENTITY_FIELDS, order_entities(order), known, strict=True)
        if token and not seen
    ]


def touch(kind: str, token: str, event: Record, *, fraud: bool = False) -> Record:
    """An EntityTouch: the event's user has used the entity; `fraud`: in an order labelled so."""
    return {
        "type": kind,
        "token": token,
        "user_id": event["user_id"],
        "event_id": event["event_id"],
        "event_time": event["event_time"],
        "fraud": fraud,
    }


def touch_key(touch: Record) -> bytes:
    """The message key. Compaction keeps one touch of each pair, and one more where fraud was seen."""
    token, mark = touch["token"].replace("%", "%25").replace("|", "%7C"), "fraud|" if touch["fraud"] else ""
    return f"{mark}{touch['type']}:{token}|{touch['user_id']}".encode()


def touched(key: bytes) -> Record | None:
    """Type, token and user_id of a touch by its message key; None if it is none."""
    kind, colon, rest = key.decode(errors="replace").removeprefix("fraud|").partition(":")
    token, bar, user = rest.partition("|")
    if not (colon and bar and kind in ENTITY_FIELDS):
        return None
    return {"type": kind, "token": token.replace("%7C", "|").replace("%25", "%"), "user_id": user}


def touch_partition(touch: Record, partitions: int) -> int:
    """The partition, which the key does not give: all touches of an entity meet in one."""
    return partition_for(_name(touch), partitions)


def _name(touch: Record) -> bytes:
    return f"{touch['type']}:{touch['token']}".encode()


class Entity(NamedTuple):
    """The join of touches; times are UTC ms. Users are 64-bit hashes, ascending: the LIMIT smallest, which
    are the same ones in whatever order they came."""

    first_time: int
    last_time: int
    users: tuple[int, ...]
    frauds: tuple[int, ...]

    @classmethod
    def of(cls, touch: Record) -> Self:
        user, time = (xxhash.xxh3_64_intdigest(touch["user_id"].encode()),), touch["event_time"]
        return cls(time, time, user, user if touch["fraud"] else ())

    def joined(self, other: "Entity") -> "Entity":
        return Entity(
            min(self.first_time, other.first_time),
            max(self.last_time, other.last_time),
            _joined(self.users, other.users),
            _joined(self.frauds, other.frauds),
        )

    def without(self, user_id: str) -> "Entity":
        """Of more than LIMIT users those are known that are left."""
        user = xxhash.xxh3_64_intdigest(user_id.encode())
        users, frauds = (tuple(one for one in some if one != user) for some in (self.users, self.frauds))
        return self._replace(users=users, frauds=frauds)

    @property
    def counts(self) -> tuple[int, int]:
        """Users and frauds, each at most LIMIT."""
        return len(self.users), len(self.frauds)

    @property
    def notable(self) -> bool:
        """Shared or tainted: worth telling every worker."""
        return len(self.users) >= 2 or len(self.frauds) >= 1

    def pack(self) -> bytes:
        head = _HEAD.pack(_FORMAT, self.first_time, self.last_time, *self.counts)
        return head + np.array(self.users + self.frauds, "<u8").tobytes()

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        _, first, last, users, _ = _HEAD.unpack_from(packed)
        hashes = tuple(np.frombuffer(packed, "<u8", offset=_HEAD.size).tolist())
        return cls(first, last, hashes[:users], hashes[users:])


def _joined(some: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    for user in more:
        at = bisect_left(some, user)
        if at < LIMIT and (at == len(some) or some[at] != user):
            some = (*some[:at], user, *some[at : LIMIT - 1])
    return some


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


def join(known: MutableMapping[bytes, Entity], touch: Record) -> Record | None:
    """Joins a touch into entities by name. The state to publish, if its counts changed and are notable."""
    name, new = _name(touch), Entity.of(touch)
    before = known.get(name)
    after = known[name] = before.joined(new) if before and before.users else new
    changed = before is None or before.counts != after.counts
    return _state(touch, after) if changed and after.notable else None


def leave(known: MutableMapping[bytes, Entity], touch: Record) -> bool:
    """Takes a user out of an entity. Whether that is to be told: what was notable may be so no more."""
    name = _name(touch)
    if (before := known.get(name)) is None:
        return False
    known[name] = before.without(touch["user_id"])
    return before.notable and known[name].counts != before.counts


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
            name, repeat = _name(touch), record.offset <= reached
            if record.value is None:
                if leave(known, touch) or repeat:
                    states[name] = _state(touch, known[name]) if name in known and known[name].notable else None
            elif join(known, touch) or (repeat and known[name].notable):
                states[name] = _state(touch, known[name])
        rows = ((name, entity.pack() if entity.users else None) for name, entity in known.items())
        self._store.write(partition, rows, max(reached, last))
        return states

    def _stored(self, partition: int, touches: Sequence[Record]) -> dict[bytes, Entity]:
        names = list({_name(touch): None for touch in touches})
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


def _state(touch: Record, entity: Entity) -> Record:
    users, frauds = entity.counts
    return {
        "type": touch["type"],
        "token": touch["token"],
        "users": users,
        "frauds": frauds,
        "first_time": entity.first_time,
        "last_time": entity.last_time,
    }


class EntityView:
    """Shared and tainted entities as a worker knows them: a reader's thread applies, the loop's looks up."""

    def __init__(self, decode: Decoder) -> None:
        """`decode` for entity_state."""
        self._decode = decode
        self._counts: dict[int, int] = {}

    def apply(self, key: bytes, value: bytes | None) -> None:
        """A record of entities.state. Raises BadRecord, RegistryUnavailable."""
        name = xxhash.xxh3_64_intdigest(key)  # the key is what events.entity_token hashes
        if value is None:
            self._counts.pop(name, None)
        else:
            state: Mapping[str, int] = self._decode(value)
            self._counts[name] = (state["users"] << 32) | state["frauds"]

    def lookup(self, tokens: NDArray[np.uint64]) -> NDArray[np.int32]:
        """(N, 5, 2) users and frauds of (N, 5) token hashes; zeros for no token or where nothing is known."""
        counts = np.zeros((*tokens.shape, 2), np.int32)
        if self._counts:
            at = np.nonzero(tokens)
            hashes = tokens[at].tolist()
            packed = np.fromiter(map(self._counts.get, hashes, repeat(0)), np.int64, len(hashes))
            counts[at] = np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=-1)
        return counts

    def __len__(self) -> int:
        return len(self._counts)
