"""Which events are of somebody who was forgotten: what every replay obeys, so that nobody comes back from the log.
Live events cost one comparison a batch: only below the newest cut-off of a partition is anybody looked up.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from schemas.errors import BadRecord
from streams.events import Record
from streams.privacy.entries import Cutoff, Entries, Entry
from streams.privacy.persons import Persons

BEFORE_ALL: Cutoff = (0, 0, 0)


class Placed(Protocol):
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...


Raw = TypeVar("Raw", bound=Placed)


class Erasures:
    """As of some entries. Safe from any thread: it never changes."""

    def __init__(self, persons: Persons | None = None, entries: Entries | None = None) -> None:
        """Without a key, or without entries, nobody was forgotten."""
        self._persons, self.entries = persons, entries or Entries()
        self._cutoffs = self.entries.cutoffs(persons.key_id) if persons is not None else {}
        self._until = {each.person: each.until or each.at for each in self.entries if not each.part}
        self._horizon: Mapping[int, Cutoff] = {
            partition: tuple(max(column) for column in zip(*found.values(), strict=True))
            for partition, found in self._cutoffs.items()
        }

    def open(self, part: str, partitions: Iterable[int] | None = None) -> list[Entry]:
        """Requests that `part` has not answered; of all partitions if none are named."""
        return self.entries.open(part, self._persons.key_id, partitions) if self._persons is not None else []

    def user_of(self, request: Entry) -> str:
        """Whom an open request is about. Raises StateError."""
        assert self._persons is not None
        return self._persons.opened(request.sealed, request.receipt)

    def horizon(self, topic: int, partition: int) -> int:
        """Offset from which on nothing is of anybody who was forgotten. topic: its index among the inputs."""
        return self._horizon.get(partition, BEFORE_ALL)[topic]

    def before(self, user_id: str, topic: int, partition: int, offset: int) -> bool:
        """Whether the event at this place is of somebody who was forgotten, and before that."""
        if self._persons is None or offset >= self.horizon(topic, partition):
            return False
        return offset < self._cutoffs[partition].get(self._persons.of(user_id), BEFORE_ALL)[topic]

    def kept(
        self, topic: int, records: Sequence[Raw], decoded: Sequence[Record | BadRecord]
    ) -> tuple[Sequence[Raw], Sequence[Record | BadRecord]]:
        """Of records of one partition, by offset, those that nobody was forgotten in; a bad one is its key's."""
        if not records or records[0].offset >= self.horizon(topic, records[0].partition):
            return records, decoded
        chosen = [
            (raw, event)
            for raw, event in zip(records, decoded, strict=True)
            if not self.before(_user_of(raw, event), topic, raw.partition, raw.offset)
        ]
        return [raw for raw, _ in chosen], [event for _, event in chosen]

    def deleted(self, user_id: str, stamped: int) -> bool:
        """Whether a record of ours, which the broker got at UTC ms `stamped`, is one that was deleted, or is to be."""
        if self._persons is None or not self._until:
            return False
        return stamped <= self._until.get(self._persons.of(user_id), -1)


def _user_of(raw: Placed, event: Record | BadRecord) -> str:
    return (raw.key or b"").decode(errors="replace") if isinstance(event, BadRecord) else str(event["user_id"])
