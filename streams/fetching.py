"""Fetches records of assigned partitions over librdkafka, in a thread of its own; it knows nothing of groups.
aiokafka has one fetch on its way and sends the next when all of the last is consumed; librdkafka reads ahead in C."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from faust.types import TP

from schemas.errors import BrokerUnavailable
from streams.config import Settings
from streams.raw import RawRecord

log = logging.getLogger(__name__)

#: Of each partition in one fetch: bounds memory, and how much a pause throws away.
FETCH_BYTES_PER_PARTITION = 256 * 1024
FETCH_BYTES = 16 * 1024 * 1024
#: An idle fetch waits this long at the broker; a resumed partition waits for the running one at most.
FETCH_WAIT_MS = 100
#: How long the thread waits for a record before it looks whether anything else is asked of it, seconds.
POLL_S = 0.05
#: Errors that librdkafka gets over by itself; it has logged them.
PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)


Records = dict[TP, list[RawRecord]]


class Fetcher:
    """Records of the partitions that `assign` names, in offset order for each. Used from one event loop.

    At most `ahead` records wait here to be taken; librdkafka holds a few MB more.
    """

    def __init__(self, settings: Settings, ahead: int, on_failure: Callable[[BaseException], object]) -> None:
        """`on_failure` hears, in the event loop, of an error that will not pass."""
        self._loop = asyncio.get_running_loop()
        self._brokers, self._on_failure = settings.brokers, on_failure
        self._pause_s = settings.batch.min_fetch_interval_ms / 1000
        self._consumer = Consumer(configuration(settings))
        self._ahead, self._room = ahead, threading.Event()
        self._lock = threading.Lock()
        self._records: Records = {}
        self._count = 0
        self._read: dict[TP, int] = {}  # the next offset, past the marks of transactions
        self._arrived = asyncio.Event()
        self._asked: deque[Callable[[], None]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)
        self._thread.start()

    async def assign(self, offsets: Mapping[TP, int | None]) -> None:
        """From now on these partitions, each from its offset, or from its start where that is None.

        What was fetched before is forgotten. All are running, also those that were paused.
        """
        await self._ask(partial(self._assign, dict(offsets)))

    async def take(self, wanted: Collection[TP] | None, timeout: float) -> Records:
        """All that has arrived of `wanted` (None: of all), after at most `timeout` seconds; the rest stays."""
        if not (found := self._taken(wanted)):
            self._arrived.clear()
            if not (found := self._taken(wanted)):
                try:
                    async with asyncio.timeout(timeout):
                        await self._arrived.wait()
                except TimeoutError:
                    return {}
                found = self._taken(wanted)
        return found

    def set_paused(self, tp: TP, paused: bool) -> None:
        """What is fetched of a paused partition and not yet here is dropped, and read again when it is resumed."""
        self._asked.append(partial(self._pause if paused else self._resume, tp))
        self._room.set()

    def position(self, tp: TP) -> int | None:
        """The next offset to fetch, past the marks of transactions, which are no records; None if not assigned."""
        return self._read.get(tp)

    def highwater(self, tp: TP) -> int:
        """The end of the partition as the newest fetch said; 0 where none has, or none ever will: it is closed."""
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(*tp), cached=True)
        except (KafkaException, RuntimeError):  # pages ask until the very end, and an ending worker has much to tell
            return 0
        return max(0, found[1]) if found else 0

    async def close(self) -> None:
        self._closing.set()
        self._room.set()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._consumer.close)

    # -- in the loop

    def _taken(self, wanted: Collection[TP] | None) -> Records:
        with self._lock:
            if wanted is None or self._records.keys() <= (wanted if isinstance(wanted, set) else set(wanted)):
                found, self._records = self._records, {}
            else:
                found = {tp: self._records.pop(tp) for tp in list(self._records) if tp in wanted}
            self._count -= sum(map(len, found.values()))
            if self._count < self._ahead:
                self._room.set()
        return found

    async def _ask(self, what: Callable[[], None]) -> None:
        """Has the thread do it, between two polls."""
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def job() -> None:
            error: BaseException | None = None
            try:
                what()
            except Exception as failed:  # noqa: BLE001  whatever it was, it is the caller's
                error = failed
            self._loop.call_soon_threadsafe(settle, error)

        self._asked.append(job)
        self._room.set()
        await done

    # -- in the thread

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                while self._asked:
                    self._asked.popleft()()
                first = self._consumer.poll(POLL_S)
                if first is not None:
                    self._put([first, *self._consumer.consume(self._ahead, 0)])
                    self._rest()
        except BaseException as error:  # noqa: BLE001  the thread has nobody above it
            self._fail(error)

    def _rest(self) -> None:
        """Not faster than asked, and no more than there is room for."""
        if self._pause_s:
            time.sleep(self._pause_s)
        while self._count >= self._ahead and not self._asked and not self._closing.is_set():
            self._room.wait()
            self._room.clear()

    def _assign(self, offsets: Mapping[TP, int | None]) -> None:
        with self._lock:
            self._records, self._count = {}, 0
            self._read = {tp: offset or 0 for tp, offset in offsets.items()}
        places = [TopicPartition(*tp, OFFSET_BEGINNING if at is None else at) for tp, at in offsets.items()]
        self._consumer.assign(places)
        if places:
            self._consumer.resume(places)

    def _pause(self, tp: TP) -> None:
        self._consumer.pause([TopicPartition(*tp)])

    def _resume(self, tp: TP) -> None:
        """From what has come here: left alone, librdkafka goes on one record past the end of a partition that it had
        read to its end, and that record would be lost.
        """
        if (at := self._read.get(tp)) is not None:
            self._consumer.resume([TopicPartition(*tp)])
            self._consumer.seek(TopicPartition(*tp, at))

    def _put(self, messages: list[Message]) -> None:
        with self._lock:
            for message in messages:
                topic, partition, offset = message.topic(), message.partition(), message.offset()
                if message.error() is not None:
                    self._refused(message.error(), topic, partition, offset)
                    continue
                place, record = TP(topic, partition), RawRecord.of(message)
                self._records.setdefault(place, []).append(record)
                self._read[place] = offset + 1
                self._count += 1
        self._loop.call_soon_threadsafe(self._arrived.set)

    def _refused(self, error: KafkaError, topic: str | None, partition: int | None, offset: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            assert topic is not None
            assert partition is not None
            assert offset is not None
            self._read[TP(topic, partition)] = offset
        elif error.code() not in PASSING and not error.retriable():
            where = f"{topic}[{partition}] at {self._brokers}" if topic else self._brokers
            raise BrokerUnavailable(f"nothing more can be read: {error.str()} ({error.name()})", where=where)

    def _fail(self, error: BaseException) -> None:
        if not self._closing.is_set():
            self._loop.call_soon_threadsafe(self._on_failure, error)


def configuration(settings: Settings) -> dict[str, object]:
    return {
        **settings.librdkafka(),
        # librdkafka wants a group even where none is joined.
        "group.id": settings.app_id,
        "client.id": settings.app_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        # What a mapping, a backfill or a replay took back was never said: recovery does not see it, so nobody may.
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "check.crcs": True,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.queue.backoff.ms": 5,
        "fetch.message.max.bytes": FETCH_BYTES_PER_PARTITION,
        "fetch.max.bytes": FETCH_BYTES,
        "queued.min.messages": 4_096,
        "queued.max.messages.kbytes": 16_384,
        "reconnect.backoff.max.ms": 1_000,
        "logger": log,
    }
