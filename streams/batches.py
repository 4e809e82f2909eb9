"""What travels through Faust here: everything that one fetch brought of one partition, as one message.
Faust's cost is per message, so a batch pays it once; how far a partition is done is counted here too."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from faust import Schema
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP

from streams.raw import RawRecord


class RecordBatch:
    """Records of one partition in offset order, at least one. `done` counts the leading records that are
    finished: all they caused is acknowledged, or they caused nothing."""

    __slots__ = ("done", "records", "size", "tp")

    def __init__(self, tp: TP, records: list[RawRecord]) -> None:
        self.tp, self.records, self.done = tp, records, 0
        #: bytes of keys and values
        self.size = sum([len(record.key or b"") + len(record.value or b"") for record in records])

    @property
    def first(self) -> int:
        return self.records[0].offset

    @property
    def last(self) -> int:
        return self.records[-1].offset

    @property
    def complete(self) -> bool:
        return self.done == len(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<{self.tp.topic}/{self.tp.partition} {self.first}..{self.last}, {self.done} done>"


class Ledger:
    """How far each partition is done. Batches are opened in offset order; the position moves over finished records
    only as far as nothing before them is unfinished, also inside a batch."""

    def __init__(self) -> None:
        self._open: dict[TP, deque[RecordBatch]] = {}
        self._done: dict[TP, int] = {}

    def opened(self, batch: RecordBatch) -> None:
        self._open.setdefault(batch.tp, deque()).append(batch)

    def position(self, tp: TP) -> int | None:
        """The next offset to read if all stopped now. None if nothing was finished since the assignment."""
        batches = self._open.get(tp)
        while batches and batches[0].complete:
            self._done[tp] = batches.popleft().last + 1
        if batches and (head := batches[0]).done:
            return head.records[head.done - 1].offset + 1
        return self._done.get(tp)

    def unfinished(self, tp: TP) -> bool:
        """Whether any batch of it is unfinished. Reads only: any thread may ask."""
        return any(not batch.complete for batch in tuple(self._open.get(tp, ())))

    def partitions(self) -> Collection[TP]:
        return list(self._open)

    def forget(self, partitions: Collection[TP]) -> None:
        """What is finished of them afterwards counts no more: others have them, or they are read again."""
        for tp in partitions:
            self._open.pop(tp, None)
            self._done.pop(tp, None)


class BatchScheduler(DefaultSchedulingStrategy):
    """Cuts what was fetched into batches, one for each partition, instead of record after record in turn."""

    def iterate(self, records: Mapping[TP, list[RawRecord]]) -> Iterator[tuple[TP, RecordBatch]]:
        for tp, found in records.items():
            owner = TP(*tp)
            yield owner, RecordBatch(owner, found)


class BatchSchema(Schema[None, RecordBatch]):
    """Passes the batch through: nothing is decoded on the way to the agent."""

    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, None, message)

        return decode
