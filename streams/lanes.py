"""The queues behind the intake: what was fetched of each partition, cut into pieces, oldest first.
Pure bookkeeping, no waiting; records leave a queue in offset order and may come back to their old place."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from faust.types import TP

from streams.batches import RecordBatch
from streams.raw import RawRecord

#: Topics of one partition number are merged by time; events within this many ms of each other need not be.
MERGE_SLACK_MS = 1000


@dataclass(slots=True, eq=False)
class Entry:
    """A batch on its way through. `arrived` by the intake's clock, `arrived_ms` in UTC."""

    batch: RecordBatch
    acknowledge: Callable[[], object]
    arrived: float
    arrived_ms: int

    def finished(self, start: int, stop: int) -> None:
        """Called for each piece of the batch, in offset order."""
        if start == stop:
            return
        assert start == self.batch.done, f"{self.batch} is finished from {start} on"
        self.batch.done = stop
        if self.batch.complete:
            self.acknowledge()


@dataclass(slots=True, eq=False)
class Piece:
    """Records start..stop (exclusive) of an entry's batch."""

    entry: Entry
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def records(self) -> list[RawRecord]:
        return self.entry.batch.records[self.start : self.stop]

    @property
    def first(self) -> int:
        return self.entry.batch.records[self.start].offset

    @property
    def oldest_ms(self) -> int:
        return self.time(self.start)

    def time(self, index: int) -> int:
        """A record's time, UTC ms; at most its arrival, or one wrong clock would hold a partition back."""
        return min(self.entry.batch.records[index].timestamp, self.entry.arrived_ms)


class Queue:
    """One partition's records that are not handed out, in offset order."""

    __slots__ = ("bytes", "events", "parked", "paused", "pieces", "tp")

    def __init__(self, tp: TP) -> None:
        self.tp = tp
        self.pieces: deque[Piece] = deque()
        self.events = self.bytes = 0
        self.parked = self.paused = False

    def put(self, piece: Piece) -> None:
        """Behind all that is older: a piece that comes back gets its old place."""
        place = len(self.pieces)
        while place and self.pieces[place - 1].first > piece.first:
            place -= 1
        self.pieces.insert(place, piece)
        self._count(piece, 1)

    def cut(self, room: int, until_ms: float) -> Piece:
        """The oldest records: at most `room`, none newer than `until_ms`, but at least one."""
        head = self.pieces[0]
        stop = min(head.stop, head.start + room)
        if head.time(stop - 1) > until_ms:
            stop = next((i for i in range(head.start + 1, stop) if head.time(i) > until_ms), stop)
        piece = Piece(head.entry, head.start, stop)
        self._count(piece, -1)
        head.start = stop
        if not len(head):
            self.pieces.popleft()
        return piece

    @property
    def oldest_ms(self) -> int:
        return self.pieces[0].oldest_ms

    @property
    def arrived(self) -> float:
        """When the oldest came."""
        return self.pieces[0].entry.arrived

    def _count(self, piece: Piece, sign: int) -> None:
        batch = piece.entry.batch
        self.events += sign * len(piece)
        self.bytes += sign * (batch.size * piece.stop // len(batch) - batch.size * piece.start // len(batch))


def cut(queues: Sequence[Queue], room: int, turn: int) -> Iterator[tuple[TP, Piece]]:
    """Up to `room` events: fair between partition numbers, starting at number `turn`; between topics by age.

    The topics of one partition number hold the same users: an order must not overtake the clicks before it.
    """
    lanes: dict[int, list[Queue]] = {}
    for queue in queues:
        lanes.setdefault(queue.tp.partition, []).append(queue)
    waiting = list(lanes.values())
    turn %= len(waiting) or 1
    waiting = waiting[turn:] + waiting[:turn]
    while room and waiting:
        share = -(-room // len(waiting))
        for lane in waiting:
            for tp, piece in _oldest_first(lane, min(share, room)):
                room -= len(piece)
                yield tp, piece
        waiting = [lane for lane in waiting if any(queue.events for queue in lane)]


def _oldest_first(lane: Collection[Queue], room: int) -> Iterator[tuple[TP, Piece]]:
    """Up to `room` events of the queues of one partition number, always from the one that is behind."""
    while room and (filled := [queue for queue in lane if queue.events]):
        filled.sort(key=lambda queue: queue.oldest_ms)
        until = filled[1].oldest_ms + MERGE_SLACK_MS if filled[1:] else float("inf")
        piece = filled[0].cut(room, until)
        room -= len(piece)
        yield filled[0].tp, piece
