"""Which user is in which row of the arrays, which rows the store does not hold yet, and who gives way.
An unsaved row may leave the arrays at any time: its packed form waits here, and is found here again.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError, StateError
from streams.state.columns import Columns
from streams.state.packing import pack, pack_all, unpack
from streams.state.runs import Ints

_SAVED: Final = 0  # flight of a row whose newest snapshot has reached the store


class RowStore(Protocol):
    """Where rows are read that are not in the arrays: see streams.store.UserStore."""

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Packed rows by user id (UTF-8), None where there is none."""


@dataclass(slots=True)
class Held:
    """A row that left the arrays unsaved, or None: its user was forgotten, which the store does not know yet.

    `flight`: the snapshot that has it, 0 if none has.
    """

    partition: int
    packed: bytes | None
    dirty: bool
    flight: int


class Slots:
    """Users and their rows. Time is counted in batches: `tick` begins one; its users stay until the next."""

    def __init__(self, columns: Columns, store: RowStore) -> None:
        count = len(columns.end)
        self._columns, self._store = columns, store
        self._slot: dict[str, int] = {}
        self._user: list[str | None] = [None] * count
        self._used = np.zeros(count, np.int64)
        self.dirty = np.zeros(count, np.bool_)
        self.flight = np.zeros(count, np.int64)
        self.held: dict[str, Held] = {}
        self._free: list[int] = []
        self._unused = iter(range(count))  # rows never used
        self._leaving: Iterator[tuple[int, int]] = iter(())  # (row, batch it was last used in), oldest first
        self._batch = 0
        self.loads = self.evictions = 0

    def __len__(self) -> int:
        return len(self._slot)

    def tick(self) -> None:
        self._batch += 1

    def find(self, users: list[str], partition: NDArray[np.int32]) -> Ints:
        """Rows of users, all marked dirty; those not in the arrays come from the store or are new.

        A user who turns up in another partition moves there with the state that is here.
        SettingsError if a batch has more users than there are rows.
        """
        slot = self.rows(users)
        missing = (slot < 0).nonzero()[0]
        if len(missing):
            self._used[slot[slot >= 0]] = self._batch
            wanted = {users[number]: int(partition[number]) for number in missing.tolist()}
            self._admit(wanted)
            for number in missing.tolist():
                slot[number] = self._slot[users[number]]
        self._used[slot] = self._batch
        self.dirty[slot] = True
        self._columns.partition[slot] = partition
        return slot

    def _admit(self, wanted: dict[str, int]) -> None:
        rows = self._take(len(wanted))
        self._columns.reset(np.array(rows, np.int64))
        ask: dict[int, list[tuple[str, int]]] = {}
        for row, (user, partition) in zip(rows, wanted.items(), strict=True):
            self._slot[user], self._user[row] = row, user
            held = self.held.pop(user, None)
            if held:  # whatever became of it, it is dirty from here on
                if held.packed is not None:
                    unpack(self._columns, row, held.packed)
            else:
                ask.setdefault(partition, []).append((user, row))
        for partition, asked in ask.items():
            found = self._store.get_many(partition, [user.encode() for user, _ in asked])
            for (_, row), packed in zip(asked, found, strict=True):
                if packed is not None:
                    unpack(self._columns, row, packed)
                    self.loads += 1

    def rows(self, users: Sequence[str]) -> Ints:
        """Rows of users in the arrays, -1 for others."""
        return np.fromiter(map(self._slot.get, users, repeat(-1)), np.int64, len(users))

    def packed(self, users: Sequence[str], partition: NDArray[np.int32]) -> list[bytes | None]:
        """Rows in packed form, from the arrays, from those that wait, or from the store; None where there is none.

        Nothing moves, and nobody counts as seen.
        """
        rows = self.rows(users).tolist()
        here = iter(pack_all(self._columns, [row for row in rows if row >= 0]))
        found: list[bytes | None] = []
        for user, row, place in zip(users, rows, partition.tolist(), strict=True):
            if row >= 0:
                found.append(next(here))
            elif user in self.held:
                found.append(self.held[user].packed)
            else:
                found += self._store.get_many(place, [user.encode()])
        return found

    def put(self, user: str, packed: bytes) -> None:
        """A saved row into the arrays, instead of one that may be there. StateError: nothing has changed."""
        row = self._one()
        self._columns.reset(np.array([row], np.int64))
        try:
            unpack(self._columns, row, packed)
        except StateError:
            self._free.append(row)
            self._used[row] = 0
            raise
        self.held.pop(user, None)
        if user in self._slot:
            self._release(self._slot[user])
        self._slot[user], self._user[row] = row, user

    def _take(self, count: int) -> list[int]:
        """Rows to use: freed ones, unused ones, then those of the users not seen for longest."""
        return [self._one() for _ in range(count)]

    def _one(self) -> int:
        row = self._free.pop() if self._free else next(self._unused, -1)
        if row < 0:
            row = self._evict()
        self._used[row] = self._batch
        return row

    def _evict(self) -> int:
        """Frees the row of the user not seen for longest, and takes it."""
        while True:
            for row, used in self._leaving:
                if self._used[row] == used < self._batch:
                    self._hold(row)
                    self._release(row)
                    self.evictions += 1
                    return self._free.pop()
            self._plan()

    def _hold(self, row: int) -> None:
        """Keeps a row that the store does not have yet."""
        if self.dirty[row] or self.flight[row] != _SAVED:
            partition, flight = int(self._columns.partition[row]), int(self.flight[row])
            self.held[self.user(row)] = Held(partition, pack(self._columns, row), bool(self.dirty[row]), flight)

    def _plan(self) -> None:
        """The next rows to evict: a sixteenth of all, those not used for longest."""
        idle = np.flatnonzero(self._used < self._batch)
        if not len(idle):
            raise SettingsError(
                f"one batch has more than {len(self._user)} users",
                where="state.slots",
                expected="more slots than a batch has events",
                todo="raise state.slots or lower batch.max_events",
            )
        count = min(len(idle), max(64, len(self._user) // 16))
        used = self._used[idle]
        oldest = np.argpartition(used, count - 1)[:count]
        oldest = oldest[used[oldest].argsort(kind="stable")]
        self._leaving = iter(zip(idle[oldest].tolist(), used[oldest].tolist(), strict=True))

    def _release(self, row: int) -> None:
        del self._slot[self.user(row)]
        self._user[row] = None
        self.dirty[row], self.flight[row] = False, _SAVED
        self._used[row] = 0
        self._free.append(row)

    def forget(self, user: str, partition: int) -> None:
        """Nothing is left of the user here; what the store has is deleted with the next snapshot."""
        row = self._slot.get(user, -1)
        if row >= 0:
            self._columns.erase(row)
            self._release(row)
        self.held[user] = Held(partition, None, True, _SAVED)

    def of(self, partitions: Collection[int]) -> Ints:
        """Rows in use of users of these partitions."""
        rows = np.flatnonzero(np.isin(self._columns.partition, list(partitions)))
        return np.array([row for row in rows.tolist() if self._user[row] is not None], np.int64)

    def user(self, row: int) -> str:
        user = self._user[row]
        assert user is not None
        return user

    def drop(self, partitions: Collection[int]) -> None:
        """Forgets users, saved or not."""
        for row in self.of(partitions).tolist():
            self._release(row)
        self._filter_held(lambda held: held.partition not in partitions)

    def saved(self, flight: int) -> None:
        """The store holds this snapshot now; a row that changed since is still unsaved, as dirty."""
        self.flight[self.flight == flight] = _SAVED
        for held in self.held.values():
            if held.flight == flight:
                held.flight = _SAVED
        self._filter_held(lambda held: held.dirty or held.flight != _SAVED)

    def abandoned(self, flight: int) -> None:
        """This snapshot will never reach the store: its rows are as unsaved as before it."""
        rows = self.flight == flight
        self.dirty[rows], self.flight[rows] = True, _SAVED
        for held in self.held.values():
            if held.flight == flight:
                held.dirty, held.flight = True, _SAVED

    def _filter_held(self, keep: Callable[[Held], bool]) -> None:
        self.held = {user: held for user, held in self.held.items() if keep(held)}
