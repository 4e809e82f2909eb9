"""Where the label join keeps its rows: RocksDB, a folder per partition, and its twin in memory.
It is a copy of the changelog, as streams.store is; what a row means is in rows, what a step is in state.
"""

from bisect import bisect_left
from collections.abc import Sequence

from rocksdict import ReadOptions

from streams.labels.state import Changes
from streams.store import USER, UserStore


class LabelStore(UserStore):
    """A UserStore that can be walked in the order of its keys."""

    def scan(self, partition: int, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """The first `limit` keys from `low` on and below `high`, ascending."""
        found: list[bytes] = []
        with self._mapped(partition):
            options = ReadOptions()
            # RocksDB then stops at `high`, instead of going on through what was deleted behind it.
            options.set_iterate_upper_bound(USER + high)
            walk = self._of(partition).iter(options)
            walk.seek(USER + low)
            while len(found) < limit and walk.valid():
                found.append(walk.key()[len(USER) :])
                walk.next()
        return found


class MemoryLabelStore:
    """The same in a dict, for tests and small measurements; nothing of it outlives the process."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[bytes, bytes]] = {}
        self._at: dict[int, int] = {}

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self.rows.get(partition, {})
        return [rows.get(key) for key in keys]

    def scan(self, partition: int, low: bytes, high: bytes, limit: int) -> list[bytes]:
        keys = sorted(self.rows.get(partition, {}))
        return keys[bisect_left(keys, low) : bisect_left(keys, high)][:limit]

    def write(self, partition: int, records: Changes, position: int) -> None:
        rows = self.rows.setdefault(partition, {})
        for key, value in records:
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        self._at[partition] = position

    def position(self, partition: int) -> int:
        return self._at.get(partition, -1)

    def close(self, partition: int | None = None) -> None:
        """Nothing is open."""

    def drop(self, partition: int) -> None:
        self.rows.pop(partition, None)
        self._at.pop(partition, None)
