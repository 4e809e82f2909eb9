"""Micro-batches into transactions: those that are whole go together, in the order in which they were scored.
A transaction that held a later one without an earlier one would say that the earlier is read, or say it twice.

Nothing here knows Kafka: `carry` sends a group of records and positions whole or not at all, in a thread.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from faust.types import TP

from schemas.errors import Fenced, HeadraceError
from streams.group import Member
from streams.metrics import Metrics
from streams.producer import Acknowledged
from streams.work import Outgoing

Offsets = Mapping[TP, int]
#: Newest offset of each score topic's partition; raises HeadraceError if nothing, or it is not known what, was sent.
Carry = Callable[[Sequence[Outgoing], Offsets, Member], Acknowledged]


class Waiting:
    """One micro-batch's records on their way; `ready` when none is to be added any more."""

    __slots__ = ("done", "member", "positions", "ready", "records")

    def __init__(self, records: list[Outgoing], positions: Offsets, member: Member) -> None:
        self.records, self.positions, self.member = records, positions, member
        self.ready = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class InOrder:
    """Used from one event loop. After a failure it is of no more use: what was sent last may be there or not."""

    def __init__(
        self,
        carry: Carry,
        member: Callable[[], Member],
        committed: Callable[[Offsets, Acknowledged], None],
        pause_s: float,
        metrics: Metrics,
    ) -> None:
        """`member`: who reads now; raises Fenced. `committed` is called in the event loop before `send` returns."""
        self._carry, self._member, self._committed = carry, member, committed
        self._pause_s, self._metrics = pause_s, metrics
        self._waiting: deque[Waiting] = deque()
        self._changed = asyncio.Event()
        self._failure: HeadraceError | None = None

    async def send(
        self, records: list[Outgoing], positions: Offsets, more: Awaitable[Sequence[Outgoing]] | None = None
    ) -> None:
        """Returns when the records, and `more`, are committed with the positions. Calls come in order of scoring.

        Raises what `carry` and `member` raise.
        """
        if self._failure is not None:
            raise self._failure
        waiting = Waiting(records, positions, self._member())
        self._waiting.append(waiting)  # before anything is awaited: this is its place
        if more is not None:
            waiting.records += await more
        waiting.ready = True
        self._changed.set()
        await waiting.done

    async def run(self) -> None:
        """Commits what is ready; `pause_s` at least from a transaction's begin to the next. Until it fails."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while group := list(self._ready()):
                started = time.monotonic()
                await self._whole(group)
                await asyncio.sleep(self._pause_s - (time.monotonic() - started))

    def _ready(self) -> Iterator[Waiting]:
        """Takes the leading micro-batches that are whole."""
        while self._waiting and self._waiting[0].ready:
            yield self._waiting.popleft()

    async def _whole(self, group: Sequence[Waiting]) -> None:
        started = time.perf_counter()
        try:
            await self._commit(group)
        except HeadraceError as error:
            self._metrics.transactions.labels("aborted").inc()
            self._failure = error
            for waiting in (*group, *self._waiting):
                if waiting.ready and not waiting.done.done():
                    waiting.done.set_exception(error)
            raise
        self._metrics.transactions.labels("committed").inc()
        self._metrics.transaction_seconds.observe(time.perf_counter() - started)
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_result(None)

    async def _commit(self, group: Sequence[Waiting]) -> None:
        member = self._member()
        if not member.current or any(waiting.member != member for waiting in group):
            raise Fenced(
                "the membership under which this was read is over",
                where=f"group {member.group}",
                todo="start the worker again; another one has its partitions meanwhile",
            )
        positions: dict[TP, int] = {}
        for waiting in group:
            positions |= waiting.positions
        records = [record for waiting in group for record in waiting.records]
        self._committed(positions, await asyncio.to_thread(self._carry, records, positions, member))
