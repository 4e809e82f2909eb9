"""A store in memory, with the methods of streams.store.UserStore.
For tests, for replays, and for a state without a store of its own.
"""

from collections.abc import Iterable, Sequence


class MemoryStore:
    """See streams.store.UserStore, whose methods these are."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self._position: dict[int, int] = {}

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self._rows.get(partition, {})
        return [rows.get(key) for key in keys]

    def write(self, partition: int, records: Iterable[tuple[bytes, bytes | None]], position: int) -> None:
        rows = self._rows.setdefault(partition, {})
        for key, packed in records:
            if packed is None:
                rows.pop(key, None)
            else:
                rows[key] = packed
        self._position[partition] = position

    def position(self, partition: int) -> int:
        return self._position.get(partition, -1)

    def close(self, partition: int | None = None) -> None:
        """Nothing to close: what is in memory stays."""

    def drop(self, partition: int) -> None:
        self._rows.pop(partition, None)
        self._position.pop(partition, None)
