"""What user state costs: events absorbed and gathered, rows copied, packed and loaded, the local store.
`python -m bench.state` prints one JSON line; CPU times, the least of several rounds.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import show
from streams.batch import CLICKS, IMPRESSIONS, KINDS, ORDERS, EventBatch
from streams.state import UserState
from streams.state.memory import MemoryStore
from streams.store import UserStore

USERS = 20_000
PARTITIONS = range(4)
START_MS = 1_700_000_000_000
TARGETS = {
    "us_per_event_64": 6.0,
    "us_per_event_256": 6.0,
    "us_per_event_hot": 30.0,
    "us_per_event_late": 30.0,
    "us_per_batch_1": 150.0,
    "us_per_batch_8": 150.0,
    "snapshot_2000_ms": 10.0,
    "pack_us": 10.0,
    "load_us": 10.0,
    "store_write_us": 10.0,
}


class Stream:
    """Batches of a seeded shop: 80 % clicks, 15 % impressions, 5 % orders of 1 to 10 lines."""

    def __init__(self, users: int, seed: int = 0) -> None:
        self._rng, self._users, self._next = np.random.default_rng(seed), users, 0
        self._names = np.array([f"user-{number:07}" for number in range(users)], object)

    def batch(self, count: int, *, hot: bool = False, late: float = 0.0) -> EventBatch:
        """`hot`: one user sends all. `late`: share of events that are a minute old."""
        rng, start = self._rng, self._next
        self._next += count
        number = np.arange(start, start + count)
        topic = rng.choice(np.array([CLICKS, IMPRESSIONS, ORDERS], np.uint8), count, p=[0.8, 0.15, 0.05])
        is_order = topic == ORDERS
        user = np.full(count, rng.integers(self._users)) if hot else rng.integers(0, self._users, count)
        lines = np.where(is_order, rng.integers(2, 12, count), 1)
        event = np.repeat(np.arange(count), lines).astype(np.int32)
        increments = np.zeros((count, 5), np.int64)
        increments[np.arange(count), topic] = 1
        increments[is_order, 3:] = 123_400, 5
        tokens = np.zeros((count, 5), np.uint64)
        tokens[is_order] = user[is_order, None] * 64 + rng.integers(1, 8, (int(is_order.sum()), 5)) * 8 + np.arange(5)
        when = START_MS + number - np.where(rng.random(count) < late, 60_000, 0)
        return EventBatch(
            users=[str(name) for name in self._names[user]],
            topic=topic,
            partition=(user % 4).astype(np.int32),
            offset=number,
            time=when,
            event_hash=(number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15),
            increments=increments,
            tokens=tokens,
            entry_event=event,
            entry_kind=np.array([KINDS["view"], KINDS["purchase"], KINDS["impression"]], np.uint8)[topic[event]],
            entry_item=rng.integers(1, 30_000, len(event)).astype(np.int32),
            entry_value=np.full(len(event), 19_900, np.int64),
            entry_quantity=np.ones(len(event), np.int32),
        )


Records = list[tuple[bytes, bytes]]


def least(works: Sequence[Callable[[], int]], clock: Callable[[], float] = time.thread_time) -> float:
    """Microseconds per unit of the fastest work; each returns its units."""
    found = []
    for work in works:
        started = clock()
        units = work()
        found.append((clock() - started) * 1e6 / units)
    return min(found)


def absorbing(state: UserState, batches: Sequence[EventBatch], gather: bool = True) -> Callable[[], int]:
    def work() -> int:
        for batch in batches:
            absorbed = state.absorb(batch)
            if gather:
                state.gather(absorbed, absorbed.fresh.nonzero()[0])
        return sum(map(len, batches))

    return work


def event_costs(state: UserState, stream: Stream) -> dict[str, float]:
    def cost(size: int, **how: Any) -> float:
        def batches() -> list[EventBatch]:
            return [stream.batch(size, **how) for _ in range(max(8, 2_048 // size))]

        return least([absorbing(state, batches()) for _ in range(5)])

    figures = {f"us_per_event_{size}": cost(size) for size in (64, 256, 4_096)}
    figures |= {f"us_per_batch_{size}": size * cost(size) for size in (1, 8)}
    return figures | {"us_per_event_hot": cost(256, hot=True), "us_per_event_late": cost(256, late=0.3)}


def saving_costs(state: UserState, stream: Stream) -> tuple[dict[str, float], Records]:
    """Of the 2,000 rows or so that one batch changes; and those rows."""
    state.saved(state.snapshot(PARTITIONS))
    copies = []
    for _ in range(5):
        state.absorb(stream.batch(2_100))
        started = time.thread_time()
        snapshot = state.snapshot(PARTITIONS)
        copies.append((time.thread_time() - started) / len(snapshot) * 2_000)
        state.saved(snapshot)
    records = list(snapshot.rows())
    pack = least([lambda: sum(1 for _ in snapshot.rows())] * 5)
    size = sum(len(packed) for _, packed in records) / len(records)
    return {"snapshot_2000_ms": 1e3 * min(copies), "pack_us": pack, "packed_bytes": size}, records


def loading_cost(stream: Stream, records: Records, size: int = 256) -> float:
    """What a batch costs more, per user, if its users are not in memory."""
    store, held = MemoryStore(), len(records) // size * size
    store.write(0, records, 0)
    names = [key.decode() for key, _ in records[:held]]

    def batches() -> list[EventBatch]:
        made = [stream.batch(size) for _ in range(held // size)]
        for number, batch in enumerate(made):
            batch.users = names[number * size : (number + 1) * size]
            batch.partition[:] = 0
        return made

    few, all_of_them = UserState(2 * size, store=store), UserState(held, store=store)

    absorbing(all_of_them, batches(), gather=False)()
    hits = least([absorbing(all_of_them, batches(), gather=False) for _ in range(3)])
    misses = []
    for batch in [batch for _ in range(3) for batch in batches()]:
        few.saved(few.snapshot([0]))  # so that those who leave need not be packed
        misses.append(least([absorbing(few, [batch], gather=False)]))
    return float(np.median(misses)) - hits


def store_costs(folder: Path, records: Records, rows: int) -> dict[str, float]:
    """Bulk load of `rows` rows, compaction included; then reads of 64 users at once, in random order."""
    store, rng = UserStore(folder), np.random.default_rng(0)

    def write() -> int:
        for start in range(0, rows, 2_000):
            numbers = range(start, start + 2_000)
            store.write(0, [(b"user-%d" % n, records[n % len(records)][1]) for n in numbers], start)
        return rows

    def read() -> int:
        for _ in range(50):
            store.get_many(0, [b"user-%d" % n for n in rng.integers(0, rows, 64)])
        return 50 * 64

    figures = {"store_write_us": least([write], time.process_time), "store_read_us": least([read] * 3)}
    store.close()
    return figures


def main(store_rows: int = 200_000) -> dict[str, Any]:
    stream, state = Stream(USERS), UserState(65_536)
    for _ in range(98):  # 20 events a user
        state.absorb(stream.batch(4_096))
    figures, records = saving_costs(state, stream)
    figures["load_us"] = loading_cost(stream, records)
    with tempfile.TemporaryDirectory() as folder:
        figures |= store_costs(Path(folder), records, store_rows)
    for _ in range(102):  # 41 events a user, more than half of the users with more clicks than the ring holds
        state.absorb(stream.batch(4_096))
    figures |= event_costs(state, stream)
    return figures


if __name__ == "__main__":
    show("state", main(), TARGETS)
