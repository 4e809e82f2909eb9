"""Cards, devices, addresses, emails and ips that several users share, or that fraud has touched.
Who scores a user emits touches, an entity's owner joins them, and all workers read what is shared or tainted.

An entity's state is the join of its touches: their order, and how often each comes, make no difference. Two things
take out what is there: a touch that is deleted, as its user was forgotten, and a fraud that is taken back.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, MutableMapping
from itertools import chain, repeat
from struct import Struct
from typing import NamedTuple, Self, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.wire import Decoder
from streams.events import ENTITY_FIELDS, Record, order_entities
from streams.partitioning import partition_for

FRAUD_MARK = "fraud:"
LIMIT = 64  # distinct users kept of an entity; a count of 64 says "64 or more"
_HEAD = Struct("<BqqBB")  # format, first and last time (ms), numbers of users and of frauds; their hashes follow
_FORMAT = 2  # 1 had the users of frauds only, and not which order it was


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


def touch_key(touch: Record, *, verdict: bool = False) -> bytes:
    """The message key. Compaction keeps one touch of each pair, and one of each order that was fraud, or was taken for
    it: of such a one `verdict` is true, whatever it says.
    """
    mark = f"{FRAUD_MARK}{_plain(touch['event_id'])}|" if verdict or touch["fraud"] else ""
    return f"{mark}{touch['type']}:{_plain(touch['token'])}|{touch['user_id']}".encode()


def _plain(text: str) -> str:
    return text.replace("%", "%25").replace("|", "%7C")


def touched(key: bytes) -> Record | None:
    """Type, token and user_id of a touch by its message key; None if it is none."""
    text = key.decode(errors="replace").removeprefix("fraud|")  # as it was before orders were named
    if text.startswith(FRAUD_MARK):
        _, _, text = text.partition("|")
    kind, colon, rest = text.partition(":")
    token, bar, user = rest.partition("|")
    if not (colon and bar and kind in ENTITY_FIELDS):
        return None
    return {"type": kind, "token": token.replace("%7C", "|").replace("%25", "%"), "user_id": user}


def touch_partition(touch: Record, partitions: int) -> int:
    """The partition, which the key does not give: all touches of an entity meet in one."""
    return partition_for(name_of(touch), partitions)


def name_of(touch: Record) -> bytes:
    return f"{touch['type']}:{touch['token']}".encode()


class Entity(NamedTuple):
    """The join of touches; times are UTC ms. Users are 64-bit hashes, ascending: the LIMIT smallest, which are the same
    ones in whatever order they came. Of frauds the user's hash and the event's, 0 where it is not known."""

    first_time: int
    last_time: int
    users: tuple[int, ...]
    frauds: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, touch: Record) -> Self:
        pair, time = _pair(touch), touch["event_time"]
        return cls(time, time, pair[:1], (pair,) if touch["fraud"] else ())

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
        users = tuple(one for one in self.users if one != user)
        return self._replace(users=users, frauds=tuple(pair for pair in self.frauds if pair[0] != user))

    def cleared(self, touch: Record) -> "Entity":
        """Without the fraud of that order."""
        return self._replace(frauds=tuple(pair for pair in self.frauds if pair != _pair(touch)))

    @property
    def counts(self) -> tuple[int, int]:
        """Users, and users with a fraud, each at most LIMIT."""
        return len(self.users), len({user for user, _ in self.frauds})

    @property
    def notable(self) -> bool:
        """Shared or tainted: worth telling every worker."""
        return len(self.users) >= 2 or len(self.frauds) >= 1

    def pack(self) -> bytes:
        head = _HEAD.pack(_FORMAT, self.first_time, self.last_time, len(self.users), len(self.frauds))
        return head + np.array([*self.users, *chain.from_iterable(self.frauds)], "<u8").tobytes()

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Raises StateError for a row of a format that is not known."""
        form, first, last, users, _ = _HEAD.unpack_from(packed)
        if form not in (1, _FORMAT):
            raise StateError(
                f"a row of format {form}", where="entities", expected=f"format 1 or {_FORMAT}",
                todo="start the version of headrace that wrote it, or delete the folder: it is made again from the log",
            )  # fmt: skip
        hashes = np.frombuffer(packed, "<u8", offset=_HEAD.size).tolist()
        rest = hashes[users:]
        frauds = zip(rest, repeat(0)) if form == 1 else zip(rest[::2], rest[1::2], strict=True)
        return cls(first, last, tuple(hashes[:users]), tuple(frauds))


def _pair(touch: Record) -> tuple[int, int]:
    return xxhash.xxh3_64_intdigest(touch["user_id"].encode()), xxhash.xxh3_64_intdigest(touch["event_id"].encode())


Hashes = TypeVar("Hashes", int, tuple[int, int])


def _joined(some: tuple[Hashes, ...], more: tuple[Hashes, ...]) -> tuple[Hashes, ...]:
    """The LIMIT smallest of both, each once, ascending."""
    known = list(some)
    for one in more:
        at = bisect_left(known, one)
        if at < LIMIT and (at == len(known) or known[at] != one):
            known.insert(at, one)
            del known[LIMIT:]
    return tuple(known)


def join(known: MutableMapping[bytes, Entity], touch: Record) -> Record | None:
    """Joins a touch into entities by name. The state to publish, if its counts changed and are notable."""
    name, new = name_of(touch), Entity.of(touch)
    before = known.get(name)
    after = known[name] = before.joined(new) if before and before.users else new
    changed = before is None or before.counts != after.counts
    return state_of(touch, after) if changed and after.notable else None


def leave(known: MutableMapping[bytes, Entity], touch: Record) -> bool:
    """Takes a user out of an entity. Whether that is to be told: what was notable may be so no more."""
    name = name_of(touch)
    if (before := known.get(name)) is None:
        return False
    known[name] = before.without(touch["user_id"])
    return before.notable and known[name].counts != before.counts


def clear(known: MutableMapping[bytes, Entity], touch: Record) -> bool:
    """Takes a fraud back. Whether that is to be told."""
    name = name_of(touch)
    if (before := known.get(name)) is None:
        return False
    known[name] = before.cleared(touch)
    return known[name].counts != before.counts


def state_of(touch: Record, entity: Entity) -> Record:
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
