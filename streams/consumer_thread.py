"""aiokafka's consumer in a thread and loop of its own, so that heartbeats go on while the app computes.
Made from our settings, not from Faust's: fetch sizes, security, assignment. Heartbeats renew the lease."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownMemberIdError, kafka_errors
from faust.transport.drivers import aiokafka
from faust.types import TP
from mode.threads import WorkerThread

from schemas.errors import BrokerUnavailable, Fenced
from streams.config import Settings
from streams.group import Member
from streams.lease import Lease
from streams.tenure import Share

HEARTBEATS_PER_SESSION = 10
#: How often aiokafka's idle fetcher looks around, seconds.
IDLE_S = 1.0
#: aiokafka does not know the error that tells a static member of its successor; for us it is one who is no member.
FENCED_INSTANCE_ID = 82
kafka_errors.setdefault(FENCED_INSTANCE_ID, UnknownMemberIdError)


class Host(Protocol):
    """What the transport needs of its app beside Faust's own."""

    settings: Settings
    lease: Lease
    crashed: bool
    transacted: frozenset[str]
    """Inputs whose offsets transactions commit."""

    share: Share

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
            group_instance_id=settings.instance_id or None,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
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
        consumer = self._ensure_consumer()
        self._watch_membership(consumer._coordinator, cast(Host, self.app).lease)
        consumer._fetcher._get_actions_per_node = _no_actions

    def _watch_membership(self, coordinator: Any, lease: Lease) -> None:
        heartbeat, reset = coordinator._do_heartbeat, coordinator.reset_generation
        instance = cast(Host, self.app).settings.instance_id

        async def beat() -> bool:
            sent_at = lease.clock()
            answered: bool = await heartbeat()
            if answered:
                lease.renew(sent_at)
            return answered

        def leave() -> None:
            lease.lose("it is unknown there, or of an old generation")
            if not instance:
                reset()
            elif not self.app.should_stop:  # reset, it would join again at once
                self.parent_loop.call_soon_threadsafe(self.app._crash, replaced(instance))

        coordinator._do_heartbeat, coordinator.reset_generation = beat, leave

    def member(self) -> Member:
        """From any thread: what is read halfway through a rebalance fits no member, and the group refuses it."""
        coordinator, settings = self._ensure_consumer()._coordinator, cast(Host, self.app).settings
        return Member(settings.app_id, coordinator.generation, coordinator.member_id, settings.instance_id)

    async def committed(self) -> Mapping[TP, int | None]:
        """What the group has committed of each assigned partition."""
        return cast(Mapping[TP, int | None], await self.call_thread(self._all_committed))

    async def _all_committed(self) -> Mapping[TP, int | None]:
        consumer = self._ensure_consumer()
        partitions = list(consumer.assignment())
        offsets = await asyncio.gather(*[consumer.committed(tp) for tp in partitions])
        return {TP(*tp): offset for tp, offset in zip(partitions, offsets, strict=True)}

    def alive(self) -> None:
        """The app still takes records: without this the coordinator leaves the group after max_poll_interval_ms."""
        with self._ensure_consumer()._subscription.fetch_context():
            pass

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


def replaced(instance: str) -> Fenced:
    """A static member does not join again by itself: it would push out who has its name now, in turn for ever."""
    return Fenced(
        f"the membership of {instance!r} is over: another worker joined by that name, or this one was silent too long",
        where="instance_id",
        expected="a name of its own for each worker, and heartbeats within session_timeout_s",
        todo="give each worker its own instance_id; if they have, start this one again",
    )


def _no_actions(assignment: Any) -> tuple[list[Any], dict[Any, Any], float, bool, list[Any]]:
    """In place of aiokafka's own fetching: no fetches, no resets, look again in a while. See streams.fetching."""
    return [], {}, IDLE_S, False, []
