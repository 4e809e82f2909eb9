"""The batch transport: Faust's aiokafka driver that carries one message per fetch and partition, URL scheme
`kafkabatch`. It replaces what loses or repeats records in the stock driver: commits, acks, rewinds, pauses.

Faust fetches, delivers and rebalances as always. Differences that surprise:
- every topic of the app is a batch topic: its values are RecordBatch; an unread one is never acknowledged;
- Faust's own producer is not started and refuses, as it commits past failed sends: use streams.producer;
- partitions are paused in aiokafka, below Faust, whose flow control would undo a pause of its own.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

from faust.transport.drivers import TRANSPORTS, aiokafka
from faust.types import TP, ConsumerMessage, Message
from mode.utils.futures import notify

from schemas.errors import ProduceFailed
from streams.batches import Ledger, RecordBatch
from streams.consumer_thread import ConsumerThread, Host
from streams.fetching import Fetcher
from streams.group import Member

SCHEME = "kafkabatch"
#: Records that wait at most between the fetcher and the intakes.
MIN_AHEAD = 1024


class Consumer(aiokafka.Consumer):
    """Delivers RecordBatches and commits exactly what is finished."""

    consumer_stopped_errors: ClassVar[Any] = aiokafka.Consumer.consumer_stopped_errors

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.ledger = Ledger()
        self._committed: dict[TP, int] = {}
        self._committing = asyncio.Lock()
        self._settled = asyncio.Event()
        self._fetcher: Fetcher | None = None
        super().__init__(*args, **kwargs)

    @property
    def host(self) -> Host:
        return cast(Host, self.app)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- delivery

    async def on_start(self) -> None:
        await super().on_start()
        batch = self.host.settings.batch
        ahead = max(MIN_AHEAD, 4 * batch.max_events)
        self._fetcher = Fetcher(self.host.settings, ahead, self.app._crash)

    async def on_stop(self) -> None:
        await super().on_stop()
        if self._fetcher is not None:
            await self._fetcher.close()

    @property
    def fetcher(self) -> Fetcher:
        assert self._fetcher is not None, "the consumer has not started"
        return self._fetcher

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        cast(ConsumerThread, self._thread).alive()
        return await self.fetcher.take(active_partitions, timeout)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Reads every partition from what is committed of it, also one of which nothing is: that one from its start."""
        committed = await cast(ConsumerThread, self._thread).committed()
        await self.fetcher.assign(committed)
        return cast(Mapping[TP, int], committed)

    def highwater(self, tp: TP) -> int:
        return self.fetcher.highwater(tp)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        batch = cast(RecordBatch, record)
        self.ledger.opened(batch)
        newest = batch.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            newest.offset,
            newest.timestamp / 1000,
            0,
            None,
            None,
            cast(Any, batch),
            None,
            0,
            batch.size,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def ack(self, message: Message) -> bool:
        """All of the batch is finished. One that Faust dropped before an agent saw it is not acknowledged."""
        if not message.tracked or message.acked:
            return False
        message.acked = True
        batch = cast(RecordBatch, message.value)
        batch.done = len(batch)
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
        return True

    def abandon(self, batches: Iterable[RecordBatch]) -> None:
        """Nobody will finish these batches. What is done of them counts."""
        dropped = {id(batch) for batch in batches}
        for message in [m for m in self._unacked_messages if id(m.value) in dropped]:
            self._unacked_messages.discard(message)

    def pause(self, tp: TP) -> None:
        """No more of this partition until `resume` or the next assignment. A fetch under way still comes."""
        self.fetcher.set_paused(tp, True)

    def resume(self, tp: TP) -> None:
        self.fetcher.set_paused(tp, False)

    def on_buffer_full(self, tp: TP) -> None:
        """Not needed: the channel is shallow, and the intake pauses what it cannot hold."""

    def on_buffer_drop(self, tp: TP) -> None: ...

    def finished(self, tp: TP) -> bool:
        """Whether all that is known of the partition is fetched and finished. Offsets cannot tell: the last ones
        may be marks of transactions. From any thread; AssertionError where it is not assigned.
        """
        fetched = self.fetcher.position(tp)
        assert fetched is not None
        return fetched >= self.highwater(tp) and not self.ledger.unfinished(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets may have gaps: the ledger counts records, not offsets."""

    # -- commits

    def committed(self) -> dict[TP, int]:
        """The next offset to read of each assigned partition that has one committed, as the broker has it."""
        return dict(self._committed)

    async def commit_now(self) -> bool:
        """Commits all that is finished now. False if the broker did not take it: a rebalance is on."""
        await self.commit()
        return not any(self._uncommitted())

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        # The stock one returns at once when another commit runs, without the newer acks.
        async with self._committing:
            return bool(await self.force_commit(topics, start_new_transaction))

    def carried(self, offsets: Mapping[TP, int]) -> None:
        """A transaction has committed these, with what they caused: see streams.transacted."""
        self._committed.update(offsets)
        self._committed_offset.update(offsets)
        self.app.monitor.on_tp_commit(dict(offsets))

    def member(self) -> Member:
        """Who we are in the group now, as far as we know."""
        return cast(ConsumerThread, self._thread).member()

    def _uncommitted(self) -> Iterable[TP]:
        """Not of inputs that transactions carry: a commit beside them could overtake one, and go back."""
        for tp in self.ledger.partitions():
            if tp.topic in self.host.transacted:
                continue
            offset = self.ledger.position(tp)
            if offset is not None and self._should_commit(tp, offset):
                yield tp

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Any:
        return [tp for tp in self._uncommitted() if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        return self.ledger.position(tp)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return offset > self._committed.get(tp, -1)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        assigned = self.assignment()
        offsets = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        if not offsets or not await self._commit(offsets):
            return False
        self.carried(offsets)
        return True

    # -- rebalance and stop

    async def perform_seek(self) -> None:
        await super().perform_seek()
        self._committed = {tp: offset for tp, offset in self._committed_offset.items() if offset is not None}

    async def wait_empty(self) -> None:
        """The flow has stopped, for a rebalance or for good. Finishes what was begun, and commits it.

        After a crash it does neither: what is not committed is read again.
        """
        if not self.host.crashed:
            await self.host.release()
            await super().wait_empty()
        if self.app.should_stop:
            self._settled.set()

    def resume_flow(self) -> None:
        """Faust calls this after a restore, whatever has become of the assignment meanwhile."""
        if not self.host.share.tenure.over:
            super().resume_flow()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.host.share.take()
        if self.app.should_stop:
            # A rebalance while we stop: leave the partitions only when the stop has committed.
            await self._settled.wait()
            return
        # First, because it waits and commits: only then forget.
        await super().on_partitions_revoked(revoked)
        self.ledger.forget(revoked)
        self._committed.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.host.lease.renew(self.host.lease.clock())
        self.host.share.give(assigned, generation_id)
        await super().on_partitions_assigned(assigned, generation_id)

    def close(self) -> None:
        """The stock one closes aiokafka from a loop that is not its own; its thread does it when it stops."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """The stock check takes wall time for monotonic, and a paused partition for a dead one."""


class Producer(aiokafka.Producer):
    """Faust's producer, which nothing here may use: it tells nobody that a send was refused."""

    async def on_start(self) -> None:
        """Connects to nothing."""

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        raise ProduceFailed("Faust's own producer is not used", where=topic, todo="use streams.producer")

    def send_soon(self, fut: Any) -> None:
        raise ProduceFailed("Faust's own producer is not used", todo="use streams.producer")

    async def flush(self) -> None: ...


class Transport(aiokafka.Transport):
    """What `kafkabatch://host:port` names."""

    Consumer: ClassVar[Any] = Consumer
    Producer: ClassVar[Any] = Producer


TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
