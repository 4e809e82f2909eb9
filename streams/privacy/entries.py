"""An entry of the log of the forgotten, and what all of them together say. Pure: no Kafka, no clock.
A request is one entry; whoever has something of the person answers it with an entry of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Cutoff = tuple[int, int, int]
"""Offsets of clicks, orders, impressions in the person's partition."""

TOPICS = ("clicks", "orders", "impressions")
STATE, LABELS, LEARNER = "state", "labels", "learner"


@dataclass(frozen=True, slots=True)
class Entry:
    """As the contract has it; `part` empty: the request. Times are UTC ms."""

    person: str
    key_id: str
    part: str
    receipt: str
    partition: int
    cutoff: Cutoff
    at: int
    until: int = 0
    done: bool = False
    sealed: bytes = b""
    report: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Entry":
        cut = record["cutoff"]
        return cls(**{**record, "cutoff": (cut["clicks"], cut["orders"], cut["impressions"])})

    def record(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"cutoff": dict(zip(TOPICS, self.cutoff, strict=True))}

    @property
    def key(self) -> str:
        return f"{self.person}/{self.part}"

    def answered(self, part: str, at: int, cutoff: Cutoff | None = None) -> "Entry":
        """What `part` answers to this request."""
        return replace(self, part=part, at=at, cutoff=cutoff or self.cutoff, until=0, done=False, sealed=b"", report="")


class Entries:
    """All entries. Never changed: `put` makes another one, so that a reader may keep what it has."""

    def __init__(self, known: Mapping[str, Entry] | None = None) -> None:
        self._known = dict(known or {})

    def put(self, entry: Entry) -> "Entries":
        return Entries({**self._known, entry.key: entry})

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._known.values())

    def request(self, person: str) -> Entry | None:
        """The newest one."""
        return self._known.get(f"{person}/")

    def answer(self, person: str, part: str) -> Entry | None:
        """The newest of a part, to whichever request."""
        return self._known.get(f"{person}/{part}")

    def open(self, part: str, key_id: str, partitions: Iterable[int] | None = None) -> list[Entry]:
        """Requests that `part` has not answered; of all partitions if none are named."""
        wanted = None if partitions is None else set(partitions)
        return [
            entry
            for entry in self
            if not entry.part
            and not entry.done
            and entry.key_id == key_id
            and (wanted is None or entry.partition in wanted)
            and not self.has_answered(entry, part)
        ]

    def has_answered(self, request: Entry, part: str) -> bool:
        answer = self.answer(request.person, part)
        return answer is not None and answer.receipt == request.receipt

    def cutoffs(self, key_id: str) -> dict[int, dict[str, Cutoff]]:
        """By partition and person: what came before is of somebody who was forgotten. Once their state is gone."""
        found: dict[int, dict[str, Cutoff]] = {}
        for entry in self:
            if entry.part == STATE and entry.key_id == key_id:
                found.setdefault(entry.partition, {})[entry.person] = entry.cutoff
        return found

    def newest(self, part: str, partition: int | None = None) -> int:
        """UTC ms since when a part has forgotten nobody, 0 if it never has: a copy that is older may hold them."""
        return max((each.at for each in self if each.part == part and partition in (None, each.partition)), default=0)

    @property
    def deleted_at(self) -> int:
        """UTC ms since when nothing was deleted from our own topics; 0 if nothing ever was."""
        return max((each.until for each in self), default=0)
