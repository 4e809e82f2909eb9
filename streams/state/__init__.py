"""User state: absorbs micro-batches of events, and says what was known of each user just before each event.
State is a function of the set of absorbed events, not of how topics interleave or where batches end.

    columns, packing            the arrays, a user a row; a row as bytes
    slots, snapshot             who is in which row; a copy to write while state moves on
    runs                        processing order, sums within a user's events
    dedupe, tokens, history     what is kept of a user, each with its own rule of what leaves first
    few                         the short way for a few plain events
    peek                        what would be said of an event that has not come
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from streams.batch import LIMIT, ORDERS, EventBatch
from streams.state.absorbed import Absorbed
from streams.state.columns import COUNTED, FIRST, REACHED, SEEN, TOTALS, Columns, Shape
from streams.state.dedupe import Dedupe
from streams.state.few import FEW, Few
from streams.state.history import Histories, History, Lines
from streams.state.memory import MemoryStore
from streams.state.packing import packed_partition
from streams.state.runs import Ints, Runs, merge_order
from streams.state.slots import RowStore, Slots
from streams.state.snapshot import Snapshot
from streams.state.tokens import Tokens

# Keeps apart one event_id on two topics: further down an id is compared and ordered without its topic.
TOPIC_SALT = np.array([0, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


class UserState:
    """The users of all partitions of a worker. From one thread at a time."""

    def __init__(
        self,
        slots: int = 65_536,
        history: int = 64,
        ring: int = 128,
        ids: int = 64,
        tokens: int = 20,
        store: RowStore | None = None,
        dedupe_per_user: int = 20_000,
        page: int = 256,
    ) -> None:
        """`slots`: users in memory (7.7 KB each, see columns), no fewer than a batch has; the rest is in
        `store`, or packed in memory where there is none. `dedupe_per_user`: most ids remembered of one user
        and topic for 24 hours of event time; of a user who sends more, a repeat may be counted. The others:
        see Shape.
        """
        self.shape, self.dedupe_per_user = Shape(history, ring, ids, tokens, page), dedupe_per_user
        self._memory = MemoryStore()  # where `store` is None
        self._columns = Columns.empty(slots, self.shape)
        self._alone = store is None
        self._slots = Slots(self._columns, self._memory if store is None else store)
        self._dedupe = Dedupe(self._columns, dedupe_per_user)
        self._histories = Histories(self._columns)
        self._tokens = Tokens(self._columns)
        self._few = Few(self._columns, self._dedupe, self._histories, self._tokens)
        self._batch = self._snapshot = 0
        self._stored: dict[int, int] = {}

    def __len__(self) -> int:
        """Users in the arrays."""
        return len(self._slots)

    @property
    def loads(self) -> int:
        """Rows that came from the store since the start."""
        return self._slots.loads

    @property
    def evictions(self) -> int:
        """Users that left the arrays to make room."""
        return self._slots.evictions

    @property
    def dedupe_evictions(self) -> int:
        """Event ids that were forgotten within 24 hours because their user had sent too many."""
        return self._dedupe.evicted

    def absorb(self, batch: EventBatch, order: NDArray[np.int64] | None = None) -> Absorbed:
        """Takes N events in; what is said of each is what was known just before it.

        Each user's events are taken by (greatest event_time so far in the topic, topic, offset): offsets of a
        topic stay in order, topics merge by time. `order`, a permutation of all N event indices, replaces
        that. StateError: an event_time out of bounds, or a saved row that cannot be read.
        """
        self._batch += 1
        count = len(batch)
        if not count:
            return Absorbed.nothing(0, self._batch)
        if int(batch.time.min()) <= 0 or int(batch.time.max()) >= LIMIT:
            raise StateError("an event_time out of bounds", expected=f"ms between 0 and {LIMIT}")
        self._slots.tick()
        slot = self._slots.find(batch.users, batch.partition)
        topic = batch.topic.astype(np.int64)
        ids = batch.event_hash ^ TOPIC_SALT[topic]
        event, runs = self._order(batch, slot, topic, order)
        if runs.single:
            if count <= FEW and (absorbed := self._few.absorb(batch, ids, slot, topic, self._batch)):
                return absorbed
        else:
            slot, topic = slot[event], topic[event]
        cut, second = self._advance(batch, event, slot, topic, runs)
        fresh = self._dedupe.fresh(slot, topic, ids[event], second, runs.single)
        if not fresh.all():
            event, slot, topic, second = event[fresh], slot[fresh], topic[fresh], second[fresh]
            runs = Runs(None) if runs.single else Runs(slot)
        absorbed = Absorbed.nothing(count, self._batch)
        absorbed.cut = cut
        absorbed.fresh[event] = True
        if len(event):
            self._take(batch, ids, event, slot, topic, second, runs, absorbed)
        return absorbed

    def _order(
        self, batch: EventBatch, slot: Ints, topic: Ints, order: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.intp], Runs]:
        """Processing order, and the runs of users in it. Arrival order where no user occurs twice."""
        if len(set(batch.users)) == len(batch):
            return np.arange(len(batch)), Runs(None)
        event = merge_order(slot, topic, batch.time, self._columns.marks[slot, REACHED + topic], order)
        return event, Runs(slot[event])

    def _advance(
        self, batch: EventBatch, event: NDArray[np.intp], slot: Ints, topic: Ints, runs: Runs
    ) -> tuple[Ints, Ints]:
        """Moves offsets and times on, for repeats too; returns cuts (batch order) and seconds reached."""
        marks = self._columns.marks.take(slot, axis=0)
        if not runs.single:
            rest = np.ones(len(slot), np.bool_)
            rest[runs.head] = False
            marks[rest] = -1
        flat = marks.reshape(-1)
        at = np.arange(0, marks.size, marks.shape[1]) + topic
        flat[at] = np.maximum(flat[at], batch.offset[event])
        flat[at + REACHED] = np.maximum(flat[at + REACHED], batch.time[event])
        marks = runs.running_max(marks)
        self._columns.marks[runs.tails(slot)] = runs.tails(marks)
        cut = np.empty((len(slot), REACHED), np.int64)
        cut[event] = marks[:, :REACHED]
        return cut, marks.reshape(-1)[at + REACHED] // 1000

    def _take(
        self,
        batch: EventBatch,
        ids: NDArray[np.uint64],
        event: NDArray[np.intp],
        slot: Ints,
        topic: Ints,
        second: Ints,
        runs: Runs,
        absorbed: Absorbed,
    ) -> None:
        """Absorbs fresh events, given in processing order, and writes what was known before each."""
        time, own_ids = batch.time[event], ids[event]
        lines = Lines.of(batch, ids)
        added = np.zeros((len(event), FIRST), np.int64)
        added[:, TOTALS] = batch.increments[event]
        added.reshape(-1)[np.arange(0, added.size, FIRST) + COUNTED + topic] = 1
        added[:, SEEN] = lines.count[event]
        held = self._columns.sums.take(slot, axis=0)
        earlier = runs.earlier_sum(added)
        before = held[:, :FIRST] + earlier
        place = np.arange(len(slot)), COUNTED + topic
        self._dedupe.remember(slot, topic, own_ids, second, before[place], None if runs.single else earlier[place])
        appended = self._histories.append(slot, runs, time, own_ids, event, lines)
        first = _earliest(held[:, FIRST], time, runs)
        self._store_sums(slot, runs, before + added, np.where(first == 0, time, np.minimum(first, time)))
        totals = before[:, TOTALS]
        for number, later in appended.later.items():
            totals[number] -= later
        absorbed.totals[event] = totals
        absorbed.first_time[event] = np.where(first <= time, first, 0)
        absorbed.late[event] = appended.late
        absorbed.window[event] = appended.window
        orders = (topic == ORDERS).nonzero()[0]
        if len(orders):
            which = event[orders]
            known = self._tokens.use(slot[orders], batch.tokens[which], time[orders], batch.offset[which])
            absorbed.known[which] = known

    def _store_sums(self, slot: Ints, runs: Runs, after: Ints, first: Ints) -> None:
        rows = np.empty((len(slot), FIRST + 1), np.int64)
        rows[:, :FIRST] = after
        rows[:, FIRST] = first
        self._columns.sums[runs.tails(slot)] = runs.tails(rows)

    def gather(self, absorbed: Absorbed, rows: NDArray[np.intp]) -> History:
        """Copies of the histories that these events of the newest absorbed batch see.

        StateError after a later absorb or load: the history may have moved.
        """
        if absorbed.batch != self._batch:
            raise StateError("histories are gathered before the next batch is absorbed")
        return self._histories.gather(absorbed.window[rows])

    def packed(self, users: Sequence[str], partition: NDArray[np.int32]) -> list[bytes | None]:
        """Rows of users as they are now, wherever they are; None where there is none. Nothing changes by it."""
        return self._slots.packed(users, partition)

    def cut(self, users: Sequence[str]) -> Ints:
        """(N, 3) the newest absorbed offset per topic of users in the arrays; -1 if none."""
        rows = self._slots.rows(users)
        return np.where(rows[:, None] >= 0, self._columns.marks[rows, :REACHED], -1)

    def dirty(self, partition: int) -> int:
        """How many users of the partition changed since the last snapshot of it."""
        held = sum(held.dirty and held.partition == partition for held in self._slots.held.values())
        return held + int(np.count_nonzero(self._slots.dirty & (self._columns.partition == partition)))

    def snapshot(self, partitions: Collection[int]) -> Snapshot:
        """Copies what changed in these partitions since the last one. Call `saved` when it is stored."""
        self._snapshot += 1
        slots, number = self._slots, self._snapshot
        rows = np.flatnonzero(slots.dirty & np.isin(self._columns.partition, list(partitions)))
        packed: list[tuple[int, str, bytes | None]] = []
        for user, held in slots.held.items():
            if held.dirty and held.partition in partitions:
                held.dirty, held.flight = False, number
                packed.append((held.partition, user, held.packed))
        slots.dirty[rows], slots.flight[rows] = False, number
        users = [slots.user(row) for row in rows.tolist()]
        return Snapshot(number, frozenset(partitions), users, self._columns.copy(rows), packed)

    def saved(self, snapshot: Snapshot) -> None:
        """The store holds the snapshot's records now. Until this is said, its rows cannot leave memory."""
        if self._alone:
            for partition in {
                *snapshot.columns.partition.tolist(),
                *(owner for owner, _, _ in snapshot.packed),
            }:
                self._memory.write(partition, snapshot.records(partition), -1)
        self._slots.saved(snapshot.number)
        self._stored |= dict.fromkeys(snapshot.partitions, snapshot.number)

    def stored(self, partition: int) -> int:
        """Number of the newest snapshot of this partition that the store has; 0 if it has none."""
        return self._stored.get(partition, 0)

    def abandoned(self, snapshot: Snapshot) -> None:
        """The snapshot will not be stored: its rows are changed again, for the next one."""
        self._slots.abandoned(snapshot.number)

    def load(self, key: bytes, packed: bytes) -> None:
        """Puts a row into memory that the store, or its log, holds. StateError if it cannot be read."""
        self._batch += 1
        self._slots.tick()
        self._slots.put(key.decode(), packed)
        if self._alone:
            self._memory.write(packed_partition(packed), [(key, packed)], -1)

    def forget(self, user: str, partition: int) -> int:
        """As if the user had never been here; who comes again is new.

        The store knows once `stored` of that partition reaches what this returns.
        """
        self._batch += 1  # histories that were promised may be theirs
        self._slots.forget(user, partition)
        return self._snapshot + 1

    def drop(self, partitions: Collection[int]) -> None:
        """Forgets users of partitions, saved or not: before a restore, and when another worker has them."""
        self._slots.drop(set(partitions))
        for partition in partitions:
            self._memory.drop(partition)


def _earliest(held: Ints, time: Ints, runs: Runs) -> Ints:
    """Per event, the earliest event_time of its user before it in processing order; 0 if none."""
    if runs.single:
        return held
    back = LIMIT - 1 - time  # a running minimum is a running maximum, backwards
    start = np.where(held == 0, 0, LIMIT - 1 - held)
    reached = runs.running_max(runs.previous(back, start))
    return np.where(reached == 0, 0, LIMIT - 1 - reached)


__all__ = ["TOPIC_SALT", "Absorbed", "History", "Shape", "Snapshot", "UserState"]
