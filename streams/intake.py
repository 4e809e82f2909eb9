"""Turns the record batches of all partitions into micro-batches for a scoring loop, and counts what is done.
It batches by back pressure: an idle loop gets what is there, a busy one finds more when it comes back."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator

from faust.types import TP

from streams.batches import RecordBatch
from streams.lanes import Entry, Piece, Queue, cut
from streams.raw import RawRecord

#: A partition is paused above these, queued and not handed out, and resumed below half of them.
QUEUED_EVENTS = 4096
QUEUED_BYTES = 4 * 1024 * 1024


class Part:
    """Consecutive records of one partition inside a micro-batch, in offset order."""

    __slots__ = ("pieces", "records", "tp")

    def __init__(self, tp: TP) -> None:
        self.tp = tp
        self.pieces: list[Piece] = []
        self.records: list[RawRecord] = []

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.records += piece.records

    def keep(self, count: int) -> list[Piece]:
        """Keeps the first `count` records; returns what held the others."""
        del self.records[count:]
        rest = []
        for piece in self.pieces:
            kept = min(count, len(piece))
            count -= kept
            rest.append(Piece(piece.entry, piece.start + kept, piece.stop))
            piece.stop = piece.start + kept
        return [piece for piece in rest if len(piece)]

    def __len__(self) -> int:
        return len(self.records)


class MicroBatch:
    """What the engine gets at once: of each partition at most one part.

    Call `computed` when the engine is free again, `done` when all outputs of all events are acknowledged.
    """

    __slots__ = ("_intake", "_stage", "number", "parts")

    def __init__(self, parts: list[Part], intake: "Intake", number: int) -> None:
        self.parts, self._intake, self.number, self._stage = parts, intake, number, 0

    def __len__(self) -> int:
        """Events."""
        return sum([len(part) for part in self.parts])

    def records(self) -> Iterator[RawRecord]:
        for part in self.parts:
            yield from part.records

    def reached(self) -> dict[TP, int]:
        """Of each partition the offset after its newest record here."""
        return {part.tp: part.records[-1].offset + 1 for part in self.parts if part.records}

    def computed(self) -> None:
        if self._stage < 1:
            self._stage = 1
            self._intake._computed()

    def done(self) -> None:
        self.computed()
        if self._stage < 2:
            self._stage = 2
            self._intake._done(self)


class Intake:
    """Offered by the transport, taken by one loop, both in the same event loop.

    Every record is handed out once, in offset order for each partition; again only after `park` gave it back.
    Micro-batches may be done in any order; they count as finished in the order in which they were handed out, so that
    what is committed of all topics is what the state held at one moment. (An order committed before the click that
    was scored without it is in the click's history when a successor says the click again.)
    `pause` and `resume` are called to bound what is queued of a partition, whatever the reason.
    """

    def __init__(
        self,
        *,
        max_events: int,
        max_wait: float,
        pause: Callable[[TP], None],
        resume: Callable[[TP], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`max_wait` in seconds: how long events wait for company while the engine is busy."""
        self.max_events, self.max_wait = max_events, max_wait
        self._pause, self._resume, self._clock, self._wall = pause, resume, clock, wall
        self._queues: dict[TP, Queue] = {}
        self._dropped: dict[int, RecordBatch] | None = None
        self._computing = self._turn = 0
        self._open: dict[int, MicroBatch | None] = {}  # handed out and not finished, by number: the batch once done
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    # -- the transport's side

    def offer(self, batch: RecordBatch, acknowledge: Callable[[], object]) -> None:
        """Takes a batch; `acknowledge` is called once, when all its records are finished."""
        entry = Entry(batch, acknowledge, self._clock(), int(self._wall() * 1000))
        self._put(batch.tp, Piece(entry, 0, len(batch)))
        self._changed.set()

    async def revoke(self) -> list[RecordBatch]:
        """Drops what is queued, then waits until all that is handed out is done: all partitions are going.

        Returns the batches that are now nobody's; their `done` counts. After `fail` it does not wait.
        """
        pieces = [piece for queue in self._queues.values() for piece in queue.pieces]
        self._dropped = dropped = {id(piece.entry.batch): piece.entry.batch for piece in pieces}
        self._queues.clear()
        try:
            await self._finished(self._turn)
        finally:
            self._dropped = None
        return list(dropped.values())

    def fail(self, error: BaseException) -> None:
        """The worker ends: whoever takes, or waits for what is out, gets `error`."""
        self._failure = self._failure or error
        self._changed.set()
        self._closed.set()

    # -- the loop's side

    async def take(self) -> MicroBatch:
        """The next micro-batch, when there is one. Raises what `fail` was given."""
        while (batch := self.take_now()) is None:
            self._changed.clear()
            await self._wait()
        return batch

    def take_now(self) -> MicroBatch | None:
        """None if nothing is to be handed out yet: it is empty, or the engine is busy and more may come."""
        if self._failure is not None:
            raise self._failure
        queues = self._ready()
        if not queues or not self._due(queues):
            return None
        parts: dict[TP, Part] = {}
        for tp, piece in cut(queues, self.max_events, self._turn):
            parts.setdefault(tp, Part(tp)).add(piece)
        self._turn += 1
        self._computing += 1
        self._open[self._turn] = None
        for queue in queues:
            self._regulate(queue)
        return MicroBatch(list(parts.values()), self, self._turn)

    def park(self, part: Part, start: int) -> None:
        """Gives back a part's records from index `start` on, and holds its partition until `unpark`.

        The part keeps those before. For what cannot be decoded now, such as a schema that only the registry
        knows, which is away.
        """
        for piece in part.keep(start):
            self._put(part.tp, piece)
        if self._dropped is None:
            queue = self._queues.setdefault(part.tp, Queue(part.tp))
            queue.parked = True
            self._regulate(queue)

    def unpark(self, tp: TP) -> None:
        if queue := self._queues.get(tp):
            queue.parked = False
            self._regulate(queue)
            self._changed.set()

    @property
    def parked(self) -> set[TP]:
        return {tp for tp, queue in self._queues.items() if queue.parked}

    async def settled(self) -> None:
        """Returns when all that was handed out before this call is done; more is handed out meanwhile.

        Raises what `fail` was given.
        """
        await self._finished(self._turn)
        if self._failure is not None:
            raise self._failure

    @property
    def queued(self) -> int:
        """Events here and not handed out, parked ones included."""
        return sum(queue.events for queue in self._queues.values())

    @property
    def unfinished(self) -> int:
        """Micro-batches handed out and not finished."""
        return len(self._open)

    # -- inside

    def _put(self, tp: TP, piece: Piece) -> None:
        if self._dropped is not None:
            self._dropped[id(piece.entry.batch)] = piece.entry.batch
            return
        queue = self._queues.setdefault(tp, Queue(tp))
        queue.put(piece)
        self._regulate(queue)

    def _ready(self) -> list[Queue]:
        return [queue for queue in self._queues.values() if queue.events and not queue.parked]

    def _due(self, queues: Collection[Queue]) -> bool:
        if not self._computing or sum([queue.events for queue in queues]) >= self.max_events:
            return True
        return self._clock() >= self._deadline(queues)

    def _deadline(self, queues: Collection[Queue]) -> float:
        return min([queue.arrived for queue in queues]) + self.max_wait

    async def _wait(self) -> None:
        """Until something changed, or the oldest event has waited long enough."""
        timer = None
        if queues := self._ready():
            delay = self._deadline(queues) - self._clock()
            timer = asyncio.get_running_loop().call_later(delay, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _finished(self, turn: int) -> None:
        """Returns when no micro-batch up to this number is open, or all has failed."""
        while self._failure is None and any(number <= turn for number in self._open):
            self._closed.clear()
            await self._closed.wait()

    def _computed(self) -> None:
        self._computing -= 1
        self._changed.set()

    def _done(self, batch: MicroBatch) -> None:
        self._open[batch.number] = batch
        while self._open and (oldest := next(iter(self._open.values()))) is not None:
            for piece in (piece for part in oldest.parts for piece in part.pieces):
                piece.entry.finished(piece.start, piece.stop)
            del self._open[oldest.number]
        self._closed.set()

    def _regulate(self, queue: Queue) -> None:
        full = queue.events >= QUEUED_EVENTS or queue.bytes >= QUEUED_BYTES
        low = queue.events <= QUEUED_EVENTS // 2 and queue.bytes <= QUEUED_BYTES // 2
        if not queue.paused and (queue.parked or full):
            queue.paused = True
            self._pause(queue.tp)
        elif queue.paused and low and not queue.parked:
            queue.paused = False
            self._resume(queue.tp)
