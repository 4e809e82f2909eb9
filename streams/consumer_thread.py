"""aiokafka's consumer in a thread and loop of its own, so that heartbeats go on while the app computes.
Made from our settings, not from Faust's: fetch sizes, security, assignment. Heartbeats renew the lease."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka
from faust.types import TP
from mode.threads import WorkerThread

from schemas.errors import BrokerUnavailable
from streams.config import Settings
from streams.lease import Lease

#: Of each partition in one fetch: bounds memory, and how much a pause throws away.
FETCH_BYTES_PER_PARTITION = 256 * 1024
FETCH_BYTES = 16 * 1024 * 1024
#: An idle fetch waits this long at the broker; a resumed partition waits for the running one at most.
FETCH_WAIT_MS = 100
HEARTBEATS_PER_SESSION = 10


class Host(Protocol):
    """What the transport needs of its app beside Faust's own."""

    settings: Settings
    lease: Lease
    crashed: bool

    async def release(self) -> None:
        """No more batches come. Returns when all that were handed to the scoring loop are finished."""


class QuietThread(WorkerThread):
    """Its service has told the app of a crash already; the interpreter need not print it too."""

    def run(self) -> None:
        with suppress(Exception):
            super().run()


class ConsumerThread(aiokafka.AIOKafkaConsumerThread):
    """The only user of aiokafka's consumer; the app's loop calls it through Faust's method queue."""

    Worker = QuietThread

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        conf, settings = self.app.conf, cast(Host, self.app).settings
        session_ms = int(settings.session_timeout_s * 1000)
        self._assignor = self.app.assignor
        return AIOKafkaConsumer(
            **settings.aiokafka(),
            client_id=conf.broker_client_id,
            group_id=conf.id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
            fetch_max_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // HEARTBEATS_PER_SESSION,
        )

    async def on_start(self) -> None:
        try:
            await super().on_start()
        except KafkaError as error:
            where = cast(Host, self.app).settings.brokers
            raise BrokerUnavailable(f"the consumer cannot connect: {error}", where=where) from error
        self._watch_membership(self._ensure_consumer()._coordinator, cast(Host, self.app).lease)

    def _watch_membership(self, coordinator: Any, lease: Lease) -> None:
        heartbeat, reset = coordinator._do_heartbeat, coordinator.reset_generation

        async def beat() -> bool:
            sent_at = lease.clock()
            answered: bool = await heartbeat()
            if answered:
                lease.renew(sent_at)
            return answered

        def leave() -> None:
            lease.lose("it is unknown there, or of an old generation")
            reset()

        coordinator._do_heartbeat, coordinator.reset_generation = beat, leave

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Rewinds every partition, also one that has nothing committed: that one to its start.

        aiokafka leaves such a partition where it is, behind records that were fetched and then dropped.
        """
        committed: Mapping[TP, int] = await self.call_thread(self._rewind)
        return committed

    async def _rewind(self) -> Mapping[TopicPartition, int | None]:
        consumer = self._ensure_consumer()
        partitions = list(consumer.assignment())
        offsets = await asyncio.gather(*[consumer.committed(tp) for tp in partitions])
        committed = dict(zip(partitions, offsets, strict=True))
        for tp, offset in committed.items():
            if offset is not None:
                consumer.seek(tp, offset)
        if unread := [tp for tp, offset in committed.items() if offset is None]:
            await consumer.seek_to_beginning(*unread)
        return committed

    def fetched(self, tp: TP) -> int:
        """The next offset to fetch: past the marks of transactions, which are no records. From any thread.

        AssertionError where the partition is not assigned, or not positioned yet.
        """
        consumer, place = self._ensure_consumer(), TopicPartition(*tp)
        assert consumer._subscription.is_assigned(place)
        return int(consumer._subscription.subscription.assignment.state_value(place).position)

    def set_paused(self, tp: TP, paused: bool) -> None:
        """From any thread. aiokafka drops what it had prefetched of a paused one, and reads it again."""
        self.thread_loop.call_soon_threadsafe(self._set_paused, TopicPartition(*tp), paused)

    def _set_paused(self, tp: TopicPartition, paused: bool) -> None:
        consumer = self._ensure_consumer()
        if tp in consumer.assignment():
            (consumer.pause if paused else consumer.resume)(tp)

    async def on_thread_stop(self) -> None:
        # aiokafka awaits the fetches that it has itself cancelled, and stops there if the broker is away.
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            await self._ensure_consumer()._client.close()

    def _stopped_set(self) -> None:
        with suppress(RuntimeError):  # its loop is closed: it stopped when the app crashed
            super()._stopped_set()

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """The stock one prints; the crash itself is logged."""
