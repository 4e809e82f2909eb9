"""A copy of the rows that changed since the last one, to be packed and written while state moves on."""

from collections.abc import Iterator
from dataclasses import dataclass

from streams.state.columns import Columns
from streams.state.packing import pack_all


@dataclass(frozen=True, slots=True)
class Snapshot:
    """With all earlier snapshots of its partitions it is their state. May be read on another thread."""

    number: int
    partitions: frozenset[int]
    users: list[str]
    columns: Columns  # a row per user
    packed: list[tuple[int, str, bytes | None]]  # (partition, user, row) of users that had left the arrays

    def __len__(self) -> int:
        return len(self.users) + len(self.packed)

    def rows(self, partition: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The records of those who were not forgotten."""
        yield from ((user, packed) for user, packed in self.records(partition) if packed is not None)

    def records(self, partition: int | None = None) -> Iterator[tuple[bytes, bytes | None]]:
        """(user id in UTF-8, packed row) of one partition, or of all; no row for who was forgotten."""
        owners = self.columns.partition.tolist()
        rows = [row for row, owner in enumerate(owners) if partition is None or owner == partition]
        for row, packed in zip(rows, pack_all(self.columns, rows), strict=True):
            yield self.users[row].encode(), packed
        for owner, user, held in self.packed:
            if partition is None or owner == partition:
                yield user.encode(), held
