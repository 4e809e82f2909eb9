"""The rows of one partition of the label join: what is stored, and over it what the current step has changed.
A step's changes are handed out for the changelog, and are stored only after the transaction that holds them.

Beside its rows the store keeps two timelines, made from the rows and never in the changelog. A place in a
timeline that its row has left, as after a crash between the transaction and the store, is passed over.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Protocol

from streams.labels import rows

Changes = Iterable[tuple[bytes, bytes | None]]


class Store(Protocol):
    """Bytes by partition and key: see streams.labels.store."""

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""

    def scan(self, partition: int, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """The first `limit` keys from `low` on and below `high`, ascending."""

    def write(self, partition: int, records: Changes, position: int) -> None:
        """Puts values in order (None deletes one) and the position, all or nothing."""

    def position(self, partition: int) -> int:
        """The changelog offset that the values reflect, -1 if there are none."""


class State:
    """Used from one thread. What a step reads and changes is held in memory until `stored` or `discard`."""

    def __init__(self, store: Store, partition: int) -> None:
        self._store, self._partition = store, partition
        self._read: dict[bytes, bytes | None] = {}
        self._changed: dict[bytes, bytes | None] = {}
        self._added: dict[bytes, list[bytes]] = {}  # by timeline: places of changed rows, ascending
        self._taken: list[bytes] = []  # stored places that this step took
        # By timeline: nothing is stored below. Without it each walk would begin at all that was ever deleted.
        self._first: dict[bytes, bytes] = {}
        self._first_before: dict[bytes, bytes] = {}

    @property
    def position(self) -> int:
        """The changelog offset that the stored rows reflect, -1 if there are none."""
        return self._store.position(self._partition)

    def fetch(self, keys: Sequence[bytes]) -> None:
        """Reads rows at once that the step will ask for one by one."""
        new = [key for key in dict.fromkeys(keys) if key not in self._changed and key not in self._read]
        if new:
            self._read.update(zip(new, self._store.get_many(self._partition, new), strict=True))

    def get(self, key: bytes) -> bytes | None:
        if key in self._changed:
            return self._changed[key]
        if key not in self._read:
            self.fetch((key,))
        return self._read[key]

    def put(self, key: bytes, row: bytes | None) -> None:
        """Changes a row; None deletes it."""
        self._changed[key] = row
        if row is not None:
            place = rows.due_key(key, row)
            line = place[: place.index(b"\0") + 1]
            added = self._added.setdefault(line, [])
            at = bisect_left(added, place)
            if at == len(added) or added[at] != place:
                insort(added, place)

    def erase(self, key: bytes) -> None:
        """Deletes a row, and the place where it stands: nothing names it any more, not only nothing counts it."""
        row = self.get(key)
        if row is None:
            return
        place = rows.due_key(key, row)
        line = place[: place.index(b"\0") + 1]
        added = self._added.get(line, [])
        if (at := bisect_left(added, place)) < len(added) and added[at] == place:
            del added[at]
        self._taken.append(place)
        self._changed[key] = None

    def due(self, line: bytes, until: int, limit: int) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Takes at most `limit` places of a timeline that are due at `until`, UTC ms, the earliest first.

        Returns (key, row) of the rows that stand there, and whether there may be more. Each of these rows must
        be put or deleted: it stands in no timeline any more.
        """
        if until < 0:
            return [], False
        high = line + (until + 1).to_bytes(8, "big")
        places = self._stored(line, high, limit)
        added = self._added.get(line, [])
        new = added[: bisect_left(added, high)][:limit]
        merged = sorted({*places, *new})[:limit]
        if not merged:
            return [], False
        last = merged[-1]
        del added[: bisect_left(added, last + b"\0")]
        if taken := [place for place in places if place <= last]:
            self._taken += taken
            self._first_before.setdefault(line, self._first.get(line, line))
            self._first[line] = taken[-1] + b"\0"
        keys = [rows.due_row(line, place) for place in merged]
        self.fetch(keys)
        found = [(key, row, place) for key, place in zip(keys, merged, strict=True) if (row := self.get(key))]
        return [(key, row) for key, row, place in found if rows.due_key(key, row) == place], len(merged) == limit

    def _stored(self, line: bytes, high: bytes, limit: int) -> list[bytes]:
        low = self._first.get(line, line)
        return self._store.scan(self._partition, low, high, limit) if low < high else []

    @property
    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """What the step has changed, for the changelog: each row once, as it is now."""
        return list(self._changed.items())

    def stored(self, position: int) -> None:
        """To be called when the changes are committed; `position` is their last changelog offset."""
        self._apply(self._changed.items(), position, self._taken)
        self._forget_step()

    def discard(self) -> None:
        """Undoes the step."""
        self._first.update(self._first_before)
        self._forget_step()

    def restore(self, records: Changes, position: int) -> None:
        """Applies records of the changelog, in its order, up to the offset `position`; there is no step then."""
        self._apply(dict(records).items(), position, ())

    def _apply(self, changes: Changes, position: int, taken: Iterable[bytes]) -> None:
        records: list[tuple[bytes, bytes | None]] = [(place, None) for place in taken]
        for key, row in changes:
            records.append((key, row))
            if row is not None:
                place = rows.due_key(key, row)
                line = place[: place.index(b"\0") + 1]
                self._first[line] = min(self._first.get(line, line), place)
                records.append((place, b""))
        self._store.write(self._partition, records, position)

    def _forget_step(self) -> None:
        self._read.clear()
        self._changed.clear()
        self._added.clear()
        self._taken.clear()
        self._first_before.clear()
